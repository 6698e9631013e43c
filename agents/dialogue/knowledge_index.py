"""Finds the entry whose question is nearest to a text, by the vectors of one model."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .knowledge import Entry, rows_of

THRESHOLD: Final = 0.85
"""Least similarity of an answer where no setting says another."""
MOST_WRONG: Final = 0.05
"""Largest share of texts answered wrongly at the threshold that `choose_threshold` returns."""
_AT_ONCE: Final = 64

Vectors = npt.NDArray[np.float32]


class Embeds(Protocol):
    """A model that gives vectors of texts."""

    def embed(self, texts: Sequence[str], /) -> Vectors: ...


class Found(NamedTuple):
    """The nearest entry."""

    entry: Entry
    question: str
    """The question or wording that is nearest."""
    score: float
    """Cosine of the two texts' vectors."""


class KnowledgeIndex:
    """The vectors of all questions and wordings, [rows, H], and the entry of each. Immutable; searched from any thread."""

    def __init__(self, entries: Sequence[Entry], vectors: Vectors) -> None:
        """`vectors` are those of `rows_of(entries)`, of length 1."""
        rows = rows_of(entries)
        if len(rows) != len(vectors):
            raise ValueError(f"expected {len(rows)} vectors, one a question, found {len(vectors)}")
        self.entries, self.vectors = entries, vectors
        self._questions = [question for question, _ in rows]
        self.owners = np.array([number for _, number in rows])
        """The entry of each row."""
        self._begins = np.array([entries[number].begins for number in self.owners])
        self._ends = np.array([entries[number].ends for number in self.owners])

    def search(self, vector: npt.NDArray[Any], at: float) -> Found | None:
        """Return the nearest entry that is valid `at` a time, ms since 1970; None where none is. Of equals the first."""
        valid = (self._begins <= at) & (at < self._ends)
        if not valid.any():
            return None
        scores = np.where(valid, self.vectors @ vector, -np.inf)
        row = int(scores.argmax())
        return Found(self.entries[self.owners[row]], self._questions[row], float(scores[row]))


def build_index(
    entries: Sequence[Entry], model: Embeds, is_given_up: Callable[[], bool] = lambda: False
) -> KnowledgeIndex:
    """Return the index of a model, computed in chunks. Blocks: call it off the event loop. Raises what `embed` raises."""
    questions = [question for question, _ in rows_of(entries)]
    parts = []
    for start in range(0, len(questions), _AT_ONCE):
        if is_given_up():
            raise TimeoutError("the index is not needed any more")
        parts.append(model.embed(questions[start : start + _AT_ONCE]))
    return KnowledgeIndex(entries, np.concatenate(parts))


class Scored(NamedTuple):
    """A text of known answer, searched."""

    score: float
    is_right: bool
    """Whether the nearest entry is the one that answers it; False for a text that none answers."""
    is_answerable: bool


def score_rows(
    index: KnowledgeIndex, rows: Sequence[tuple[str, str | None]], vectors: Vectors, at: float
) -> list[Scored]:
    """Search texts, each with a question of the entry that answers it, or None. A text without a valid entry has score -1."""
    scored = []
    for (_, question), vector in zip(rows, vectors, strict=True):
        found = index.search(vector, at)
        right = found is not None and question is not None and question in found.entry.questions
        scored.append(Scored(-1.0 if found is None else found.score, right, question is not None))
    return scored


class Figures(NamedTuple):
    """What a threshold gives, as shares between 0 and 1."""

    threshold: float
    recall: float
    """Of texts that an entry answers, those answered by it."""
    wrong: float
    """Of all texts, those answered by an entry that does not answer them."""
    wrong_of_unanswerable: float
    """Of texts that none answers, those answered."""


def measure(rows: Sequence[Scored], threshold: float) -> Figures:
    """Return the figures of answering from `threshold` on. Raises ValueError without rows."""
    if not rows:
        raise ValueError("expected a row or more to measure a threshold on")
    sent = [row for row in rows if row.score >= threshold]
    answerable = sum(row.is_answerable for row in rows)
    right = sum(row.is_right for row in sent)
    others = sum(not row.is_answerable for row in sent)
    return Figures(
        threshold,
        right / max(answerable, 1),
        (len(sent) - right) / len(rows),
        others / max(len(rows) - answerable, 1),
    )


def choose_threshold(rows: Sequence[Scored], most_wrong: float = MOST_WRONG) -> Figures:
    """Return the lowest threshold, of two decimals, at which at most `most_wrong` of all texts are answered wrongly."""
    for hundredths in range(101):
        found = measure(rows, hundredths / 100)
        if found.wrong <= most_wrong:
            return found
    return measure(rows, 1.01)
