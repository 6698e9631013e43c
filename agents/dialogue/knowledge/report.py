"""What is wrong with knowledge: questions that stand too close, answers past their time, texts that nothing answers. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from .entries import plain
from .index import KnowledgeIndex, Vectors

SIMILAR: Final = 0.9
"""From this similarity on two entries' questions are near duplicates."""

Problem = Literal["contradiction", "near duplicate", "expired", "unanswered"]
FAULTS: Final[frozenset[Problem]] = frozenset({"contradiction", "near duplicate", "expired"})
"""Problems of the knowledge itself, which fail a check; texts that nothing answers do not."""


class Finding(NamedTuple):
    """A problem with a text, and the question that is nearest to it."""

    problem: Problem
    text: str
    nearest: str | None = None
    similarity: float | None = None
    detail: str = ""

    @property
    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if value not in {None, ""}}


def find_faults(index: KnowledgeIndex, now: float, similar: float = SIMILAR) -> Iterator[Finding]:
    """Yield what is wrong with the entries at a time, ms since 1970: the worst pair of any two entries, and expired ones."""
    yield from _find_pairs(index, similar)
    for entry in index.entries:
        if entry.ends <= now:
            yield Finding("expired", entry.question, detail=f"valid until {entry.valid_until}")


def _find_pairs(index: KnowledgeIndex, similar: float) -> Iterator[Finding]:
    questions = [question for entry in index.entries for question in entry.questions]
    worst: dict[tuple[int, int], tuple[float, int, int]] = {}
    for row, vector in enumerate(index.vectors):
        scores = index.vectors[:row] @ vector
        for near in np.flatnonzero(scores >= similar).tolist():
            pair = (int(index.owners[near]), int(index.owners[row]))
            if pair[0] != pair[1] and scores[near] > worst.get(pair, (-1.0, 0, 0))[0]:
                worst[pair] = float(scores[near]), row, near
    for (first, second), (score, row, other) in sorted(worst.items()):
        one, two = index.entries[first], index.entries[second]
        if not one.overlaps(two):
            continue  # the answer changes on a day
        same = plain(questions[row]) == plain(questions[other])
        if not same and None in {one.answer, two.answer}:
            continue  # an entry without an answer is there to stand close to others
        kind: Problem = "contradiction" if same and one.answer != two.answer else "near duplicate"
        yield Finding(kind, questions[row], questions[other], round(score, 3), f"entries {first + 1} and {second + 1}")


def find_unanswered(
    index: KnowledgeIndex, texts: Sequence[tuple[str, float]], vectors: Vectors, threshold: float
) -> Iterator[Finding]:
    """Yield the texts of a log, each with its time in ms since 1970, whose nearest valid question lies below `threshold`.

    From there on an entry without an answer is no finding: that it stays unanswered is known.
    """
    for (text, at), vector in zip(texts, vectors, strict=True):
        found = index.search(vector, at)
        if found is None:
            yield Finding("unanswered", text, detail="no entry was valid then")
        elif not found.score >= threshold:
            yield Finding("unanswered", text, found.question, round(found.score, 3))
