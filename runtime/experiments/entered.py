"""The units that have entered an experiment's sums, in order, as chunks of fixed size that never change once full."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

import numpy as np

CHUNK: Final = 4096
"""Units of a full chunk."""
_TYPE: Final = "Q"
"""Of the arrays: 64 bits without a sign, as units are."""


class EnteredUnits:
    """A set that remembers the order in which it grew: chunks may be kept apart, and written once.

    A unit takes 16 bytes: 8 in its chunk, and 8 in one of a few sorted arrays that are searched. Two arrays of one size are
    merged, so that there are at most as many as the number of chunks has binary digits.
    """

    def __init__(self, units: Iterable[int] = ()) -> None:
        self._chunks: list[array[int]] = []
        self._tail: list[int] = []
        self._in_tail: set[int] = set()
        self._sorted: list[array[int]] = []
        """Of decreasing size."""
        for unit in units:
            self.add(unit)

    def __contains__(self, unit: int) -> bool:
        return unit in self._in_tail or any(_has(units, unit) for units in self._sorted)

    def __len__(self) -> int:
        return len(self._chunks) * CHUNK + len(self._tail)

    def add(self, unit: int) -> None:
        """Add a unit; ValueError for one that is there."""
        if unit in self:
            raise ValueError(f"unit {unit} has entered before")
        self._tail.append(unit)
        self._in_tail.add(unit)
        if len(self._tail) == CHUNK:
            self._close_chunk()

    @property
    def full_chunks(self) -> int:
        """Number of full chunks."""
        return len(self._chunks)

    def chunk(self, number: int) -> list[int]:
        """Return the units of a full chunk, from 0."""
        if not 0 <= number < self.full_chunks:
            raise IndexError(f"there is no full chunk {number}")
        return self._chunks[number].tolist()

    @property
    def tail(self) -> list[int]:
        """The units behind the last full chunk."""
        return self._tail

    def _close_chunk(self) -> None:
        self._chunks.append(array(_TYPE, self._tail))
        self._sorted.append(array(_TYPE, sorted(self._tail)))
        self._tail, self._in_tail = [], set()
        while len(self._sorted) > 1 and len(self._sorted[-1]) >= len(self._sorted[-2]):
            last, before = self._sorted.pop(), self._sorted.pop()
            merged = np.sort(np.concatenate([np.asarray(before), np.asarray(last)]), kind="stable")
            self._sorted.append(array(_TYPE, merged.tobytes()))


def _has(units: "array[int]", unit: int) -> bool:
    at = bisect_left(units, unit)
    return at < len(units) and units[at] == unit
