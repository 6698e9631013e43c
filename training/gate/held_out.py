"""The rows on which the gate compares: the sets of each task."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ...runtime.model.inputs import Input
from ...runtime.model.model import Model
from ..data.example import Example, example_of
from ..data.near_texts import first_spellings, near_form
from ..data.replies import DIALOGUE
from ..evaluate.evaluate import answers, sets_of
from ..kinds.registry import KINDS, kind_of
from ..mix.hold_texts import kept_apart, texts_read_by
from ..mix.plan import Mix
from ..mix.traffic import CONVERSATION, drawn_at_random
from ..prepare.reading import read_part
from ..prepare.tasks import groups_of
from ..recipe.job import Job
from ..recipe.keys.tasks import Task, describe_form

FEEDBACK: Final = "feedback"
CORRECTED: Final = "feedback, corrected"
"""Rows of the feedback that the current version gets wrong although it knows their labels."""
NEW_LABELS: Final = "feedback, new labels"
DRAWN: Final = "feedback, drawn at random"
"""Rows of the feedback that were drawn at random for review, so that they stand for traffic."""
EARLIER: Final = "earlier feedback"
HELD: Final = "held answers"
FROM_FEEDBACK: Final = frozenset({FEEDBACK, NEW_LABELS, DRAWN, EARLIER})
PARTS_OF_FEEDBACK: Final = frozenset({NEW_LABELS, DRAWN})
"""Sets of rows that FEEDBACK has, too."""


@dataclass(frozen=True)
class HeldOutSet:
    """Rows of one task that no training saw. `scope` is the label that means none of the others, learned or not."""

    task: str
    name: str
    examples: list[Example]
    scope: str | None = None
    target: bool = False
    """Rows that must become right: all of NEW_LABELS, of FEEDBACK those that are CORRECTED; more of DRAWN."""
    agreement: bool = False
    """What is right was said by the current version, not by people."""
    group: str = CONVERSATION
    """Column whose equal values make one conversation; see `conversations_of`."""


def conversations_of(examples: Sequence[Example], column: str = CONVERSATION) -> list[Hashable] | None:
    """Return by row the conversation that it counts in: the value of a column, else the text. None: every row is its own.

    Equal texts, in whatever spelling, have equal answers, so each counts in the conversation of its first row.
    """
    first: dict[bytes, Hashable] = {}
    found: list[Hashable] = []
    for example in examples:
        near, value = near_form(example.given), example.meta.get(column)
        found.append(first.setdefault(near, near if value in {None, ""} else str(value)))
    return found if len(set(found)) < len(found) else None


def held_out_sets(mix: Mix) -> list[HeldOutSet]:
    """Return the old data's test parts and reports, the job's own, and what feedback held out, earlier and now.

    Rows of the first two whose texts the feedback judges are left out: their labels are superseded, or they are trained on.
    """
    found = [held for held in (*_of_old_data(mix), *_of_job(mix.job, mix)) if held.examples]
    for name, earlier in mix.earlier.items():
        if judging := mix.to_judge(name, earlier.heldout):
            found.append(HeldOutSet(name, EARLIER, judging, scope_of(mix, name)))
    for name, each in mix.corrections.items():
        if judging := mix.to_judge(name, each.heldout):
            found.append(HeldOutSet(name, FEEDBACK, judging, scope_of(mix, name)))
            if new := [example for example in judging if each.is_new(example)]:
                found.append(HeldOutSet(name, NEW_LABELS, new, scope_of(mix, name)))
            if drawn := drawn_at_random(judging):
                found.append(HeldOutSet(name, DRAWN, drawn, scope_of(mix, name)))
    return found


def with_targets(sets: Iterable[HeldOutSet], targets: Mapping[str, Sequence[str]]) -> list[HeldOutSet]:
    """Mark the sets with rows that must become right; `targets`: by task CORRECTED, NEW_LABELS and DRAWN, as far as there are enough."""
    names = {FEEDBACK: CORRECTED}
    return [replace(held, target=names.get(held.name, held.name) in targets.get(held.task, ())) for held in sets]


def _of_old_data(mix: Mix) -> Iterator[HeldOutSet]:
    if mix.recipe is None or mix.job.old is None:
        return
    for name, task in mix.recipe.tasks.items():
        for set_name, sources in sets_of(task).items():
            examples = read_part(sources, task, mix.job.old.folder, seed=mix.recipe.data_seed)
            scope, group = scope_of(mix, name), group_of_rows(task)
            yield HeldOutSet(name, set_name, mix.without_superseded(examples), scope, group=group)


def _of_job(job: Job, mix: Mix) -> Iterator[HeldOutSet]:
    for name, sets in job.gate.reports.items():
        spec = mix.manifest.task(name)
        for set_name, given in sets.items():
            reading = given.model_dump(exclude={"rows"}, exclude_none=True)
            task = Task(kind=spec.kind, train=given.rows, **describe_form(spec), **reading)
            examples = read_part(given.rows, task, Path(), seed=0)
            groups_of(examples, given.group)  # refuses rows without a group where one is asked for
            group = given.group or group_of_rows(task)
            yield HeldOutSet(name, set_name, mix.without_superseded(examples), scope_of(mix, name), group=group)


def group_of_rows(task: Task) -> str:
    """Return the column of the conversation that a row of a recipe's task belongs to."""
    return task.group or (DIALOGUE if KINDS.get(task.kind).generates else CONVERSATION)


def scope_of(mix: Mix, name: str) -> str | None:
    """Return the label of a task that means none of the others, learned or not."""
    old = mix.recipe.tasks.get(name) if mix.recipe else None
    if old is not None and old.out_of_scope is not None:
        return old.out_of_scope.label
    return mix.manifest.task(name).out_of_scope


def texts_to_agree_on(mix: Mix) -> dict[str, list[Input]]:
    """Return, by task, the texts on which the current version's answers are what is compared with.

    Of a task without old data those that were kept apart from what is held on to; of one whose old recipe tests nothing
    its validation rows, too.
    """
    texts, found = mix.texts(), {}
    for spec in mix.manifest.tasks:
        old = mix.recipe.tasks.get(spec.name) if mix.recipe else None
        if old is not None and (sets_of(old) or mix.job.gate.reports.get(spec.name)):
            continue
        further = [example.given for example in mix.old[spec.name].validation] if old is not None else []
        apart = kept_apart(texts_read_by(spec, texts), mix.corrections.get(spec.name), mix.earlier.get(spec.name))
        chosen = first_spellings([*apart, *further])
        if chosen:
            found[spec.name] = chosen
    return found


def held_answers(current: Model, mix: Mix) -> list[HeldOutSet]:
    """Ask the current version for what is to be agreed with. What it is not sure of itself says nothing."""
    found = []
    for name, texts in texts_to_agree_on(mix).items():
        spec = mix.manifest.task(name)
        given = answers(current, spec, [example_of(given) for given in texts])
        kind = kind_of(spec)
        examples = [kind.make_example(each.example.given, each.output) for each in given if kind.is_sure(each, spec)]
        if examples:
            found.append(HeldOutSet(name, HELD, examples, spec.out_of_scope, agreement=True))
    return found


def unmeasured(mix: Mix, sets: Sequence[HeldOutSet]) -> list[str]:
    """Say in a line for each task what nothing is known about."""
    found = []
    for spec in mix.manifest.tasks:
        names = {held.name for held in sets if held.task == spec.name}
        if not names and spec.generation is not None:
            kept = " Its decoder stays as it was, the encoder before it does not." if spec.name in mix.untaught else ""
            found.append(f"{spec.name} is not compared: it has no held-out rows; gate.reports can name some.{kept}")
        elif not names:
            found.append(
                f"{spec.name} is not compared: it has no held-out rows; gate.reports or hold.texts can name some"
            )
        elif names <= {FEEDBACK, *PARTS_OF_FEEDBACK}:
            found.append(
                f"{spec.name} is compared on this feedback alone, which says little of what it knew before; gate.reports "
                "or hold.texts can name more"
            )
    return found
