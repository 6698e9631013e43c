"""Finds the entry whose question is nearest to a text, by the vectors of one model."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .entries import Entry, rows_of
from .whitening import fit_whitening, whiten

THRESHOLD: Final = 0.85
"""Least similarity of an answer where no setting says another."""
MOST_WRONG: Final = 0.02
"""Largest share of texts answered wrongly at the threshold that `choose_threshold` returns, of each sort."""
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
    """Cosine of the two texts' vectors, whitened."""


class KnowledgeIndex:
    """The vectors of all questions and wordings, [rows, H], and the entry of each. Immutable; searched from any thread.

    Texts are compared by whitened vectors: what wordings of one question differ in counts less.
    """

    def __init__(self, entries: Sequence[Entry], vectors: Vectors) -> None:
        """`vectors` are those of `rows_of(entries)`, of length 1, as the model gives them."""
        rows = rows_of(entries)
        if len(rows) != len(vectors):
            raise ValueError(f"expected {len(rows)} vectors, one a question, found {len(vectors)}")
        self.entries, self.vectors = entries, vectors
        self._questions = [question for question, _ in rows]
        self.owners = np.array([number for _, number in rows])
        """The entry of each row."""
        answered = np.array([entries[number].answer is not None for number in self.owners])
        # Entries without an answer are no wordings of one question.
        self._whitening = fit_whitening(vectors[answered], self.owners[answered])
        self._whitened = whiten(vectors, self._whitening)
        self._begins = np.array([entries[number].begins for number in self.owners])
        self._ends = np.array([entries[number].ends for number in self.owners])

    def search(self, vector: npt.NDArray[Any], at: float) -> Found | None:
        """Return the nearest entry that is valid `at` a time, ms since 1970; None where none is. Of equals the first."""
        valid = (self._begins <= at) & (at < self._ends)
        if not valid.any():
            return None
        scores = np.where(valid, self._whitened @ whiten(vector, self._whitening), -np.inf)
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
    """Search texts, each with a question of the entry that answers it, or None.

    A text whose nearest entry has no answer, or that no entry is valid for, has score -1.
    """
    scored = []
    for (_, question), vector in zip(rows, vectors, strict=True):
        found = index.search(vector, at)
        if found is None or found.entry.answer is None:
            scored.append(Scored(-1.0, False, question is not None))
        else:
            right = question is not None and question in found.entry.questions
            scored.append(Scored(found.score, right, question is not None))
    return scored


class Figures(NamedTuple):
    """What a threshold gives, as shares between 0 and 1."""

    threshold: float
    recall: float
    """Of texts that an entry answers, those answered by it."""
    wrong: float
    """Of texts that an entry answers, those answered by another one."""
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
        (len(sent) - right - others) / max(answerable, 1),
        others / max(len(rows) - answerable, 1),
    )


def choose_threshold(rows: Sequence[Scored], most_wrong: float = MOST_WRONG) -> Figures:
    """Return the lowest threshold, of two decimals, at which at most `most_wrong` of the texts are answered wrongly: of those
    that an entry answers, and of those that none does.
    """
    for hundredths in range(101):
        found = measure(rows, hundredths / 100)
        if max(found.wrong, found.wrong_of_unanswerable) <= most_wrong:
            return found
    return measure(rows, 1.01)
