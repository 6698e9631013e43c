"""The most useful texts of a stream, as many as are wanted and some more, each wording once. Pure."""

import heapq
import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Final

from ...runtime.model.inputs import Input
from ..data.near_texts import near_form, near_id
from ..ingest.places import Filter

ALIKE: Final = 0.8
"""Texts that share so much of their words (Jaccard) are near duplicates: one of them is suggested."""
_SPARE: Final = 4
"""Texts kept for each one that is wanted, from which near duplicates are left out at the end."""
_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True)
class Candidate:
    """A text that may be suggested. `row` is what it was read from, `answer` the model's."""

    given: Input
    row: Any
    usefulness: float
    answer: Any = None


class Pool:
    """Holds at most four candidates for each one wanted; equal texts (`near_form`) count once, those in `known` never.

    Which texts have been met is known by a filter of 16 MB, which takes one text in a million for one met before.
    """

    def __init__(self, wanted: int, known: Container[bytes] = frozenset()) -> None:
        self._wanted, self._known, self._met = wanted, known, Filter()
        self._heap: list[tuple[float, int, bytes]] = []
        self._held: dict[bytes, Candidate] = {}
        self.seen = 0
        """Texts that were offered."""
        self.known = 0
        """Of these, texts that have a label."""
        self.repeated = 0
        """Of the others, texts that are equal to one before."""

    def offer(self, candidate: Candidate) -> None:
        """Hold a candidate if it is among the most useful so far; of equally useful ones the first."""
        self.seen += 1
        name = near_id(near_form(candidate.given))
        if name in self._known:
            self.known += 1
            return
        if name in self._met:
            self.repeated += 1
            return
        self._met.add(name)
        entry = (candidate.usefulness, -self.seen, name)
        if len(self._heap) < _SPARE * self._wanted:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            del self._held[heapq.heapreplace(self._heap, entry)[2]]
        else:
            return
        self._held[name] = candidate

    def ordered(self) -> list[Candidate]:
        """Return all that are held, the most useful first."""
        return [self._held[name] for _, _, name in sorted(self._heap, reverse=True)]

    @property
    def different(self) -> int:
        """How many different texts without a label were offered."""
        return self.seen - self.known - self.repeated

    def choose(self) -> tuple[list[Candidate], int]:
        """Return as many as are wanted, the most useful first, without near duplicates, and how many of these were passed by."""
        return leave_out_alike(self.ordered(), self._wanted)


def leave_out_alike(candidates: list[Candidate], wanted: int) -> tuple[list[Candidate], int]:
    """Return the first `wanted` candidates of which none is a near duplicate of one before, and how many were passed by."""
    chosen: list[Candidate] = []
    words: list[frozenset[str]] = []
    by_word: dict[str, list[int]] = {}
    passed = 0
    for each in candidates:
        if len(chosen) == wanted:
            break
        own = words_of(each.given)
        if any(alike(own, words[at]) for at in {at for word in own for at in by_word.get(word, ())}):
            passed += 1
            continue
        for word in own:
            by_word.setdefault(word, []).append(len(chosen))
        chosen.append(each)
        words.append(own)
    return chosen, passed


def words_of(given: Input) -> frozenset[str]:
    """Return the different words of a text, in small letters."""
    return frozenset(_WORD.findall(near_form(given).decode()))


def alike(one: frozenset[str], other: frozenset[str]) -> bool:
    """Return whether two sets of words are those of near duplicates."""
    return len(one & other) >= ALIKE * len(one | other)
