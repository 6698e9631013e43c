"""Examples worth a person's look after a run: errors that the model is sure of, and labels that it does not believe."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ..runtime.model import Model
from ..schemas.result import ModelRef
from ..schemas.review import ExampleRef, Review, ReviewReason
from .answers import Answer
from .corrections import Corrections, place_of, raw_rows
from .data import Example
from .evaluate import answers
from .gate_rows import HeldOutSet, best_in_scope

SURE: Final = 0.9
MOST: Final = 50
"""Of each reason so many, the surest first: people's time is the budget."""


def find_doubts(model: Model, sets: Sequence[HeldOutSet], corrections: Mapping[str, Corrections]) -> list[Review]:
    """Return the reviews to ask for, of classifications only.

    A held-out row is an error when another label is answered with a score of at least SURE. A training row is suspected
    when the model, although it has seen the row, still answers another label as surely.
    """
    errors = [
        (model.tasks[held.task].name, answer)
        for held in sets
        for answer in _sure_of_another(model, held.task, [e for e in held.examples if e.labels[:1] != (held.scope,)])
    ]
    suspects = [
        (name, answer) for name, each in corrections.items() for answer in _sure_of_another(model, name, each.train)
    ]
    found: dict[tuple[str, str], Review] = {}
    for why, doubts in ((ReviewReason.ERROR, errors), (ReviewReason.LABEL_ERROR, suspects)):
        surest = sorted(doubts, key=lambda doubt: -doubt[1].output["score"])[:MOST]
        for review in _reviews(model, why, surest):
            found.setdefault((review.key, review.task), review)
    return list(found.values())


def _sure_of_another(model: Model, task: str, examples: Sequence[Example]) -> Iterator[Answer]:
    spec = model.tasks[task]
    if spec.kind != "classification" or not examples:
        return
    for answer in answers(model, spec, examples):
        output = answer.output
        if not output["abstained"] and output["score"] >= SURE and output["label"] != answer.example.labels[0]:
            yield answer


def _reviews(model: Model, why: ReviewReason, doubts: Sequence[tuple[str, Answer]]) -> Iterator[Review]:
    lines: dict[Path, set[int]] = {}
    for _, answer in doubts:
        file, line = place_of(answer.example)
        lines.setdefault(file, set()).add(line)
    rows = {(file, line): row for file, wanted in lines.items() for line, row in _plain_rows(file, wanted)}
    by = ModelRef(name=model.manifest.name, version=model.manifest.version)
    for task, answer in doubts:
        file, line = place_of(answer.example)
        made_of = rows.get((file, line), {}).get("prediction_id")
        first, *others = answer.output["alternatives"]
        yield Review(
            prediction_id=made_of,
            example=None if made_of else ExampleRef(file=file.name, line=line),
            task=task,
            why=why,
            model=by,
            predicted=best_in_scope(answer, model.tasks[task]),
            given=answer.example.labels[0],
            score=answer.output["score"],
            margin=round(abs(first["score"] - others[0]["score"]), 7) if others else None,
            at=datetime.now(UTC),
        )


def _plain_rows(file: Path, lines: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Only what ingest wrote knows of predictions."""
    return raw_rows(file, lines) if file.suffix == ".jsonl" else iter(())
