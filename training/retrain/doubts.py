"""Examples worth a person's look after a run: errors that the model is sure of, and labels that it does not believe."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from ...runtime.model.model import Model
from ...schemas.result import ModelRef
from ...schemas.review import ExampleRef, Review, ReviewReason
from ..data.example import Example
from ..data.near_texts import near_form, near_id
from ..evaluate.evaluate import answers
from ..gate.held_out import HeldOutSet
from ..kinds.kind import Doubt
from ..kinds.registry import kind_of
from ..mix.corrections import Corrections, describe_origin, raw_rows
from ..run_folders.label_errors import LabelErrors

SURE: Final = 0.9
UNLIKELY: Final = 0.1
"""A cross-validated regression is less sure of one label among many than a trained model: a label of feedback is suspected when its
score is at most so much, and that of another is at least a half."""
MOST: Final = 50
"""Of each reason so many, the surest first: people's time is the budget."""

NO_LABEL_ERRORS: Final[Mapping[str, LabelErrors]] = {}


class Doubted(NamedTuple):
    """A row that the model answers differently, and how."""

    task: str
    example: Example
    doubt: Doubt


def find_doubts(
    model: Model,
    sets: Sequence[HeldOutSet],
    corrections: Mapping[str, Corrections],
    *,
    current: Model,
    replayed: Mapping[str, Sequence[Example]],
    roots: Sequence[Path],
    label_errors: Mapping[str, LabelErrors] = NO_LABEL_ERRORS,
) -> list[Review]:
    """Return the reviews to ask for, of kinds that find doubts only.

    A held-out row is an error when another label is answered with a score of at least SURE. A training row of the
    feedback is suspected when the model, although it has seen the row, still answers another label as surely; an old row
    that is `replayed` when the `current` version did so, too. So is a row of the feedback that a regression contradicts strongly
    which has not seen it: the run's `label_errors`. Files are named from the first of `roots` that they are in.
    """
    errors = [
        doubt
        for held in sets
        if not held.agreement
        for doubt in _sure_of_another(model, held.task, held.examples, held.scope)
    ]
    suspects = [doubt for name, each in corrections.items() for doubt in _sure_of_another(model, name, each.train)]
    suspects += [doubt for name, rows in replayed.items() for doubt in _doubted_twice(model, current, name, rows)]
    suspects += [doubt for name, each in corrections.items() for doubt in _contradicted(name, each, label_errors)]
    taken: set[tuple[str, str]] = set()
    found: list[Review] = []
    for why, doubts in ((ReviewReason.ERROR, errors), (ReviewReason.LABEL_ERROR, suspects)):
        found += _reviews(model, why, _surest(doubts, taken), roots)
    return found


def _surest(doubts: Sequence[Doubted], taken: set[tuple[str, str]]) -> list[Doubted]:
    """Return the surest, each row of each task once, and mark them as taken."""
    found: list[Doubted] = []
    for each in sorted(doubts, key=lambda doubted: -doubted.doubt.score):
        if len(found) < MOST and (each.task, each.example.place) not in taken:
            taken.add((each.task, each.example.place))
            found.append(each)
    return found


def _doubted_twice(model: Model, current: Model, task: str, rows: Sequence[Example]) -> Iterator[Doubted]:
    """Both have trained on these rows: where they contradict their labels all the same, the label is the likelier slip."""
    doubted = list(_sure_of_another(model, task, list({example.place: example for example in rows}.values())))
    before = {each.example.place: each.doubt for each in _sure_of_another(current, task, [d.example for d in doubted])}
    for each in doubted:
        other = before.get(each.example.place)
        if other is not None and other.predicted == each.doubt.predicted:
            yield each


def _contradicted(task: str, corrections: Corrections, label_errors: Mapping[str, LabelErrors]) -> Iterator[Doubted]:
    """Yield the rows of the feedback whose label a regression contradicts that has not seen them."""
    if not kind_of(corrections.spec).finds_doubts or task not in label_errors:
        return
    rows = {(near_id(near_form(row.given)).hex(), row.labels[0]): row for row in corrections.train}
    for error in label_errors[task].errors:
        example = rows.get((error.id, error.given))
        if example is None or error.answered_score is None or error.answered_score < 0.5 or error.score > UNLIKELY:
            continue
        yield Doubted(task, example, Doubt(error.answered, error.given, error.answered_score, None))


def _sure_of_another(
    model: Model, task: str, examples: Sequence[Example], scope: str | None = None
) -> Iterator[Doubted]:
    spec = model.tasks[task]
    kind = kind_of(spec)
    for answer in answers(model, spec, examples) if kind.finds_doubts else ():
        if (doubt := kind.find_doubt(answer, spec, scope, SURE)) is not None:
            yield Doubted(task, answer.example, doubt)


def _reviews(model: Model, why: ReviewReason, doubts: Sequence[Doubted], roots: Sequence[Path]) -> Iterator[Review]:
    lines: dict[Path, set[int]] = {}
    for each in doubts:
        file, line = describe_origin(each.example)
        lines.setdefault(file, set()).add(line)
    rows = {(file, line): row for file, wanted in lines.items() for line, row in _plain_rows(file, wanted)}
    by = ModelRef(name=model.manifest.name, version=model.manifest.version)
    for task, example, doubt in doubts:
        file, line = describe_origin(example)
        made_of = rows.get((file, line), {}).get("prediction_id")
        yield Review(
            prediction_id=made_of,
            example=None if made_of else ExampleRef(file=_named(file, roots), line=line),
            task=task,
            why=why,
            model=by,
            predicted=doubt.predicted,
            given=doubt.given,
            score=doubt.score,
            margin=doubt.margin,
            at=datetime.now(UTC),
        )


def _named(file: Path, roots: Sequence[Path]) -> str:
    """Return the file as a job or a recipe names it: two files of one name in two folders stay two."""
    inside = next((root for root in roots if file.is_relative_to(root)), None)
    return (file.relative_to(inside) if inside else file).as_posix()[-500:]


def _plain_rows(file: Path, lines: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Only what ingest wrote knows of predictions."""
    return raw_rows(file, lines) if file.suffix == ".jsonl" else iter(())
