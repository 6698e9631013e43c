"""Naming records by one integer each, and knowing which of them are wanted without holding them all."""

import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from ...runtime.kafka.offset_ranges import OffsetRange

PAGE: Final = 4096
_OFFSET_BITS: Final = 44
_BEHIND: Final = (1 << _OFFSET_BITS) - 1


def place(number: int, offset: int) -> int:
    """One integer for a record: the number of its range in the plan, and its offset. It orders as they do."""
    return number << _OFFSET_BITS | offset


def of_place(place: int, ranges: Sequence[OffsetRange]) -> tuple[OffsetRange, int]:
    """Return the range of a record, and its offset."""
    return ranges[place >> _OFFSET_BITS], place & _BEHIND


class Filter:
    """A Bloom filter of fixed size over prediction ids: never a false no, and up to ten million ids rarely a false yes.

    The ids are digests, so their own bits serve as hashes.
    """

    _BITS = 27

    def __init__(self) -> None:
        self._bits = bytearray(1 << self._BITS - 3)

    def add(self, digest: bytes) -> None:
        for at in self._places(digest):
            self._bits[at >> 3] |= 1 << (at & 7)

    def __contains__(self, digest: bytes) -> bool:
        return all(self._bits[at >> 3] >> (at & 7) & 1 for at in self._places(digest))

    def _places(self, digest: bytes) -> Iterator[int]:
        number, mask = int.from_bytes(digest, "big"), (1 << self._BITS) - 1
        return (number >> shift & mask for shift in (0, 27, 54, 81))


class Wanted:
    """The wanted offsets of one range, read a page at a time. Asked with offsets that only grow."""

    def __init__(self, db: sqlite3.Connection, number: int) -> None:
        self._db, self._number = db, number
        self._page: list[int] = []
        self._at = 0
        self._exhausted = False

    def at_or_after(self, offset: int) -> int:
        self._at = bisect_left(self._page, offset, self._at)
        if self._at == len(self._page) and not self._exhausted:
            self._load(offset)
        return self._page[self._at] if self._at < len(self._page) else _BEHIND

    def _load(self, offset: int) -> None:
        rows = self._db.execute(
            "SELECT place FROM wanted WHERE place >= ? AND place < ? ORDER BY place LIMIT ?",
            (place(self._number, offset), place(self._number + 1, 0), PAGE),
        )
        self._page = [here & _BEHIND for (here,) in rows]
        self._at = 0
        self._exhausted = not self._page
