"""What a model gets right of held-out rows, row by row, as it is served: the numbers that the gate compares."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..runtime.decoding import word_spans
from ..runtime.model import Model
from ..schemas.manifest import TaskSpec
from .answers import Answer
from .corrections import Corrections
from .data import Example, Span, read_part
from .evaluate import answers, sets_of
from .gate import Comparison, GateResult, Outcome, compare, judge, of_accuracy, of_f1
from .job import Gate, Job
from .kind_tagging import bio
from .mix import Mix
from .recipe import Task

FEEDBACK: Final = "feedback"
NEW_LABELS: Final = "feedback, new labels"


@dataclass(frozen=True)
class HeldOutSet:
    """Rows of one task that no training saw. `scope` is the label that means none of the others, learned or not."""

    task: str
    name: str
    examples: list[Example]
    scope: str | None = None
    target: bool = False


def held_out_sets(mix: Mix) -> list[HeldOutSet]:
    """Return the old data's test parts and reports, the job's own, and what the feedback held out."""
    job = mix.job
    found = [*_of_old_data(mix), *_of_job(job, mix)]
    for name, each in mix.corrections.items():
        if each.heldout:
            target = job.gate.target is None or name in job.gate.target
            found.append(HeldOutSet(name, FEEDBACK, each.heldout, _scope(mix, name), target))
            if new := [example for example in each.heldout if each.is_new(example)]:
                found.append(HeldOutSet(name, NEW_LABELS, new, _scope(mix, name)))
    return found


def _of_old_data(mix: Mix) -> Iterator[HeldOutSet]:
    if mix.recipe is None or mix.job.old is None:
        return
    for name, task in mix.recipe.tasks.items():
        for set_name, sources in sets_of(task).items():
            examples = read_part(sources, task, mix.job.old.data, seed=mix.recipe.data_seed)
            yield HeldOutSet(name, set_name, examples, _scope(mix, name))


def _of_job(job: Job, mix: Mix) -> Iterator[HeldOutSet]:
    for name, sets in job.gate.reports.items():
        spec = mix.manifest.task(name)
        for set_name, given in sets.items():
            reading = given.model_dump(exclude={"rows"}, exclude_none=True)
            task = Task(kind=spec.kind, train=given.rows, **reading)
            yield HeldOutSet(name, set_name, read_part(given.rows, task, Path(), seed=0), _scope(mix, name))


def _scope(mix: Mix, name: str) -> str | None:
    old = mix.recipe.tasks.get(name) if mix.recipe else None
    if old is not None and old.out_of_scope is not None:
        return old.out_of_scope.label
    return mix.manifest.task(name).out_of_scope


def weigh(current: Model, candidate: Model, sets: Sequence[HeldOutSet], gate: Gate) -> GateResult:
    """Let both answer every set, and judge."""
    return GateResult(tuple(_weigh(current, candidate, held, gate) for held in sets))


def _weigh(current: Model, candidate: Model, held: HeldOutSet, gate: Gate) -> Comparison:
    # `answers` gives the shortest texts first, for both in the same order.
    before, after = (outcome(model, held) for model in (current, candidate))
    allowance = gate.allowances.get(held.task, gate.allowance)
    found = compare(before, after)
    return judge(held.task, held.name, found, allowance=allowance, target=held.target, strict=gate.strict)


def outcome(model: Model, held: HeldOutSet) -> Outcome:
    """Return what a model gets right. A label that it does not have it gets wrong.

    Classification: the best label in scope is right, withheld or not, as `accuracy` in reports; a row out of scope is
    right when the answer is withheld. Several labels: the labels named. Tagging: whole spans over the data's words.
    """
    spec = model.tasks[held.task]
    found = list(answers(model, spec, held.examples))
    if spec.kind == "classification":
        return of_accuracy(is_right(answer, spec, held.scope) for answer in found)
    pairs = [_named(answer) if spec.kind == "multi_label" else _spans(answer) for answer in found]
    return of_f1(
        [len(truth & guess) for truth, guess in pairs],
        [len(guess - truth) for truth, guess in pairs],
        [len(truth - guess) for truth, guess in pairs],
    )


def is_right(answer: Answer, spec: TaskSpec, scope: str | None) -> bool:
    """Say whether a classification's answer is right; of a withheld one the best label in scope counts."""
    truth = answer.example.labels[0]
    if truth == scope:
        return bool(answer.output["abstained"])
    return best_in_scope(answer, spec) == truth


def best_in_scope(answer: Answer, spec: TaskSpec) -> str:
    """Return the most likely label but the one out of scope."""
    order: list[int] = answer.logits.argsort()[::-1].tolist()
    labels = (spec.labels[number] for number in order)
    return next(label for label in labels if label != spec.out_of_scope)


Named = set[tuple[object, ...]]


def _named(answer: Answer) -> tuple[Named, Named]:
    return {(label,) for label in answer.example.labels}, {(item["label"],) for item in answer.output["labels"]}


def _spans(answer: Answer) -> tuple[Named, Named]:
    words = answer.example.words or tuple((start, end) for _, start, end in word_spans(answer.encoding))
    guess = tuple(Span(item["start"], item["end"], item["label"]) for item in answer.output["spans"])
    return _whole(bio(words, answer.example.spans)), _whole(bio(words, guess))


def _whole(tags: Sequence[str]) -> Named:
    """Return first word, word behind the last, and label of each span."""
    found: Named = set()
    start = None
    for at, tag in enumerate([*tags, "O"]):
        if start is not None and not tag.startswith("I-"):
            found.add((start, at, tags[start][2:]))
            start = None
        if tag.startswith("B-"):
            start = at
    return found


def accuracy_by_set(result: GateResult) -> Mapping[str, Mapping[str, float]]:
    """Return the candidate's figures by `task/set`, for the event."""
    return {
        f"{each.task}/{each.set}": {"current": each.found.current, "candidate": each.found.candidate}
        for each in result.comparisons
    }


def all_held_out(corrections: Mapping[str, Corrections]) -> int:
    """Count the held-out rows of the feedback."""
    return sum(len(each.heldout) for each in corrections.values())
