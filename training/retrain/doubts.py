"""Examples worth a person's look after a run: errors that the model is sure of, and labels that it does not believe."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ...runtime.model.model import Model
from ...schemas.result import ModelRef
from ...schemas.review import ExampleRef, Review, ReviewReason
from ..data.example import Example
from ..evaluate.evaluate import answers
from ..gate.held_out import HeldOutSet
from ..kinds.answers import Answer
from ..kinds.outcomes import best_in_scope
from ..mix.corrections import Corrections, describe_origin, raw_rows

SURE: Final = 0.9
MOST: Final = 50
"""Of each reason so many, the surest first: people's time is the budget."""
Doubt = tuple[str, Answer]
"""The task, and how its example was answered."""


def find_doubts(
    model: Model,
    sets: Sequence[HeldOutSet],
    corrections: Mapping[str, Corrections],
    *,
    current: Model,
    replayed: Mapping[str, Sequence[Example]],
    roots: Sequence[Path],
) -> list[Review]:
    """Return the reviews to ask for, of classifications only.

    A held-out row is an error when another label is answered with a score of at least SURE. A training row of the
    feedback is suspected when the model, although it has seen the row, still answers another label as surely; an old row
    that is `replayed` when the `current` version did so, too. Files are named from the first of `roots` that they are in.
    """
    errors = [
        (held.task, answer)
        for held in sets
        if not held.agreement
        for answer in _sure_of_another(model, held.task, [e for e in held.examples if e.labels[:1] != (held.scope,)])
    ]
    suspects = [
        (name, answer) for name, each in corrections.items() for answer in _sure_of_another(model, name, each.train)
    ]
    suspects += [
        (name, answer) for name, rows in replayed.items() for answer in _doubted_twice(model, current, name, rows)
    ]
    taken: set[tuple[str, str]] = set()
    found: list[Review] = []
    for why, doubts in ((ReviewReason.ERROR, errors), (ReviewReason.LABEL_ERROR, suspects)):
        found += _reviews(model, why, _surest(doubts, taken), roots)
    return found


def _surest(doubts: Sequence[Doubt], taken: set[tuple[str, str]]) -> list[Doubt]:
    """Return the surest, each row of each task once, and mark them as taken."""
    found: list[Doubt] = []
    for task, answer in sorted(doubts, key=lambda doubt: -doubt[1].output["score"]):
        if len(found) < MOST and (task, answer.example.place) not in taken:
            taken.add((task, answer.example.place))
            found.append((task, answer))
    return found


def _doubted_twice(model: Model, current: Model, task: str, rows: Sequence[Example]) -> Iterator[Answer]:
    """Both have trained on these rows: where they contradict their labels all the same, the label is the likelier slip."""
    doubted = list(_sure_of_another(model, task, list({example.place: example for example in rows}.values())))
    before = {answer.example.place: answer for answer in _sure_of_another(current, task, [d.example for d in doubted])}
    for answer in doubted:
        other = before.get(answer.example.place)
        if other is not None and other.output["label"] == answer.output["label"]:
            yield answer


def _sure_of_another(model: Model, task: str, examples: Sequence[Example]) -> Iterator[Answer]:
    spec = model.tasks[task]
    if spec.kind != "classification" or not examples:
        return
    for answer in answers(model, spec, examples):
        output = answer.output
        if not output["abstained"] and output["score"] >= SURE and output["label"] != answer.example.labels[0]:
            yield answer


def _reviews(model: Model, why: ReviewReason, doubts: Sequence[Doubt], roots: Sequence[Path]) -> Iterator[Review]:
    lines: dict[Path, set[int]] = {}
    for _, answer in doubts:
        file, line = describe_origin(answer.example)
        lines.setdefault(file, set()).add(line)
    rows = {(file, line): row for file, wanted in lines.items() for line, row in _plain_rows(file, wanted)}
    by = ModelRef(name=model.manifest.name, version=model.manifest.version)
    for task, answer in doubts:
        file, line = describe_origin(answer.example)
        made_of = rows.get((file, line), {}).get("prediction_id")
        first, *others = answer.output["alternatives"]
        yield Review(
            prediction_id=made_of,
            example=None if made_of else ExampleRef(file=_named(file, roots), line=line),
            task=task,
            why=why,
            model=by,
            predicted=best_in_scope(answer, model.tasks[task]),
            given=answer.example.labels[0],
            score=answer.output["score"],
            margin=round(abs(first["score"] - others[0]["score"]), 7) if others else None,
            at=datetime.now(UTC),
        )


def _named(file: Path, roots: Sequence[Path]) -> str:
    """Return the file as a job or a recipe names it: two files of one name in two folders stay two."""
    inside = next((root for root in roots if file.is_relative_to(root)), None)
    return (file.relative_to(inside) if inside else file).as_posix()[-500:]


def _plain_rows(file: Path, lines: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Only what ingest wrote knows of predictions."""
    return raw_rows(file, lines) if file.suffix == ".jsonl" else iter(())
