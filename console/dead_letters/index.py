"""The latest dead letters without their values, and which of them were sent again. Pure."""

from collections.abc import Sequence
from typing import Final

from ...runtime.wire.dead_letter_records import (
    Count,
    Group,
    Letter,
    OriginalRecord,
    Selection,
    group_of,
    marked_offset,
    read_letter,
)
from ...runtime.wire.message import Record
from ...schemas.deadletter import CUT
from ..reading.bounded_index import BoundedIndex

Place = tuple[int, int]
"""Partition and offset of a dead letter in the dead-letter topic."""
LETTER_BYTES: Final = 2_000
"""What a dead letter without its value takes in memory, beside its message."""


class DeadLetterIndex:
    """Takes the records of the dead-letter topic in order of their partitions."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._letters: BoundedIndex[Place, Letter] = BoundedIndex(max_records, max_bytes)
        self.foreign = 0
        """Records that are neither dead letters nor markers of ours."""

    @property
    def dropped(self) -> int:
        """Number of dead letters that are no longer listed, for lack of room."""
        return self._letters.dropped

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            if (offset := marked_offset(record)) is not None:
                self._mark((record.partition, offset))
            elif (fields := read_letter(record)) is not None:
                size = LETTER_BYTES + len(fields.message)
                self._letters.put((record.partition, record.offset), Letter(_without_value(record), fields), size)
            else:
                self.foreign += 1

    def _mark(self, place: Place) -> None:
        letter = self._letters.get(place)
        if letter is not None and not letter.redriven:
            self._letters.put(place, letter._replace(redriven=True), LETTER_BYTES + len(letter.fields.message))

    def get(self, place: Place) -> Letter | None:
        return self._letters.get(place)

    def count(self, selection: Selection) -> dict[Group, Count]:
        """Return the counts of the selected ones by group, the largest first."""
        counts: dict[Group, Count] = {}
        for letter in self._letters.newest():
            if selection.has(letter):
                counts.setdefault(group_of(letter), Count()).add(letter)
        return dict(sorted(counts.items(), key=lambda item: -item[1].letters))

    def find(self, selection: Selection, *, waiting_only: bool, first: int, most: int) -> list[Letter]:
        """Return at most `most` selected ones from number `first` on, the newest first."""
        found = []
        skipped = 0
        for letter in self._letters.newest():
            if (waiting_only and letter.redriven) or not selection.has(letter):
                continue
            if skipped < first:
                skipped += 1
                continue
            found.append(letter)
            if len(found) == most:
                break
        return found


def _without_value(record: Record) -> OriginalRecord:
    cut = tuple((name, raw) for name, raw in record.headers if name == CUT)
    return OriginalRecord(record.topic, record.partition, record.offset, record.timestamp, None, None, cut)
