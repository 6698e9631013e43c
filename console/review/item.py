"""One answer to judge: the text, what the model said, and what a confirmation would stand for. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from ...schemas.result import ModelRef, Source
from ...schemas.review import ReviewReason
from .tasks import EntryForm, ReviewTask

SHOWN_CHARACTERS: Final = 20_000
"""Characters of a text that are held and shown; a request may have a megabyte."""

_LARGEST_SCORE: Final = 1e9


class Place(NamedTuple):
    """Where the request to review lies: topic, partition and offset, or in a file the row's number as the offset."""

    topic: str
    partition: int
    offset: int


NO_PLACE: Final = Place("", 0, 0)
"""Of an item that was not read in the group, so that no offset is committed for it."""


def item_key(prediction_id: str, task: str) -> str:
    """Return what names an item in addresses: 16 hex digits, without the text."""
    return blake2b(f"{prediction_id}/{task}".encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Guess:
    """What the model said. `value` is entered beforehand: a label, labels, spans or a reply; None where it is not known.

    `answer` is the canonical target of a confirmation; None where a confirmation would stand for nothing, as for a withheld
    answer.
    """

    value: Any = None
    score: float | None = None
    answer: str | None = None


@dataclass(frozen=True)
class ReviewItem:
    """An answer that a person is asked to judge."""

    key: str
    prediction_id: str
    agent: str
    task: ReviewTask
    why: ReviewReason | None
    """None: a person chose it."""
    text: str
    guess: Guess
    place: Place
    model: ModelRef | None = None
    source: Source | None = None
    text_pair: str | None = None
    characters: int = 0
    """Of the whole text; `text` may be its beginning."""
    was_seen: bool = False
    """Whether the guess was before a person before the answer was drawn at random, too."""

    @property
    def is_blind(self) -> bool:
        """Whether guess and score are hidden until the answer is given."""
        return self.why is ReviewReason.RANDOM

    @property
    def is_judged_blind(self) -> bool:
        """Whether nobody can have seen the guess here."""
        return self.is_blind and not self.was_seen

    @property
    def is_cut(self) -> bool:
        return self.characters > len(self.text)

    @property
    def shown(self) -> Guess:
        """The guess as the person may see it."""
        return Guess() if self.is_blind else self.guess


def canonical(target: Any) -> str:
    """Return a target as text that is equal for equal targets."""
    return json.dumps(target, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def guess_of_output(task: ReviewTask, output: Mapping[str, Any]) -> Guess:
    """Return the guess that an answer on the wire makes. KeyError, TypeError or ValueError for one of another shape."""
    target = task.kind.target_of_answer(output)
    answer = None if target is None else canonical(target)
    score = _read_score(output.get("score"))
    if task.form is EntryForm.LABEL:
        best = output["alternatives"][0] if output.get("alternatives") else {"label": output["label"]}
        return Guess(_check_text(best["label"]), score, answer)
    if task.form is EntryForm.LABELS:
        return Guess([_check_text(each["label"]) for each in output["labels"]], score, answer)
    if task.form is EntryForm.SPANS:
        spans = [{name: each[name] for name in ("start", "end", "label")} for each in output["spans"]]
        return Guess(spans, score, answer)
    return Guess(_check_text(output["text"]), score, answer)


def _read_score(value: Any) -> float | None:
    """Return a score; None for what is no finite number, as another program may write it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < _LARGEST_SCORE else None


def _check_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def guess_of_review(task: ReviewTask, predicted: str | None, score: float | None) -> Guess:
    """Return the guess by what the request to review says itself, where the answer is not at hand.

    It knows a label alone, and not whether it was withheld: then it was, if the model withholds answers of that score.
    """
    if predicted is None or task.form is not EntryForm.LABEL:
        return Guess(score=score)
    withheld = task.accept is not None and (score is None or score < task.accept)
    return Guess(predicted, score, None if withheld else canonical(predicted))
