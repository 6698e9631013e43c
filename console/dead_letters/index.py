"""The latest dead letters without their values, and which of them were sent again. Pure."""

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
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
LETTER_BYTES: Final = 2_300
"""What a dead letter without its value takes in memory, beside its message."""


class _Members:
    """The letters of a group: by partition in the order of the log, with the time of the failure (Unix time, s)."""

    def __init__(self) -> None:
        self.all: dict[int, dict[Place, float]] = {}
        self.waiting: dict[int, dict[Place, float]] = {}
        """Those that were not sent again."""
        self.counted: Count | None = None
        """None after a change."""

    def add(self, place: Place, time: float) -> None:
        for by_partition in (self.all, self.waiting):
            by_partition.setdefault(place[0], {})[place] = time
        self.counted = None

    def remove(self, place: Place) -> None:
        del self.all[place[0]][place]
        if not self.all[place[0]]:
            del self.all[place[0]]
        self.mark(place)

    def mark(self, place: Place) -> None:
        """Count a letter as sent again."""
        self.waiting[place[0]].pop(place, None)
        self.counted = None

    def count(self) -> Count:
        if self.counted is None:
            times = [time for places in self.all.values() for time in places.values()]
            waiting = sum(map(len, self.waiting.values()))
            self.counted = Count(len(times), len(times) - waiting, min(times), max(times))
        return self.counted


class DeadLetterIndex:
    """Takes the records of the dead-letter topic in order of their partitions. Groups are counted as records come."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._letters: BoundedIndex[Place, Letter] = BoundedIndex(max_records, max_bytes)
        self._groups: dict[Group, _Members] = {}
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
                self._add(Letter(_without_value(record), fields))
            else:
                self.foreign += 1

    def _add(self, letter: Letter) -> None:
        place = _place_of(letter)
        if (before := self._letters.get(place)) is not None:  # the topic was made anew
            self._forget(before)
        members = self._groups.setdefault(group_of(letter), _Members())
        members.add(place, letter.fields.time.timestamp())
        for gone in self._letters.put(place, letter, LETTER_BYTES + len(letter.fields.message)):
            self._forget(gone)

    def _forget(self, letter: Letter) -> None:
        group, place = group_of(letter), _place_of(letter)
        members = self._groups[group]
        members.remove(place)
        if not members.all:
            del self._groups[group]

    def _mark(self, place: Place) -> None:
        letter = self._letters.get(place)
        if letter is not None and not letter.redriven:
            self._letters.put(place, letter._replace(redriven=True), LETTER_BYTES + len(letter.fields.message))
            self._groups[group_of(letter)].mark(place)

    def get(self, place: Place) -> Letter | None:
        return self._letters.get(place)

    @property
    def groups(self) -> Collection[Group]:
        return self._groups.keys()

    def count(self, selection: Selection) -> dict[Group, Count]:
        """Return the counts of the selected ones by group, the largest first."""
        counts: dict[Group, Count] = {}
        for group, members in self._select_groups(selection):
            if _is_by_group(selection):
                counts[group] = members.count()
                continue
            for letter in self._read(chain.from_iterable(members.all.values()), selection):
                counts.setdefault(group, Count()).add(letter)
        return dict(sorted(counts.items(), key=lambda item: -item[1].letters))

    def find(self, selection: Selection, *, waiting_only: bool, first: int, most: int) -> list[Letter]:
        """Return at most `most` selected ones from number `first` on, the newest first."""
        groups = [each.waiting if waiting_only else each.all for _, each in self._select_groups(selection)]
        logs = chain.from_iterable(each.values() for each in groups)
        newest = heapq.merge(*(reversed(each.items()) for each in logs), key=lambda item: -item[1])
        places = (place for place, _ in newest)
        if _is_by_group(selection):
            return list(self._read(islice(places, first, first + most), selection))
        return list(islice(self._read(places, selection), first, first + most))

    def _select_groups(self, selection: Selection) -> Iterator[tuple[Group, _Members]]:
        by_group = replace(selection, since=None, until=None, offsets={})
        for group, members in self._groups.items():
            if any(self._read(islice(chain.from_iterable(members.all.values()), 1), by_group)):
                yield group, members

    def _read(self, places: Iterable[Place], selection: Selection) -> Iterator[Letter]:
        for place in places:
            if selection.has_offset(*place):
                letter = self._letters.get(place)
                if letter is not None and selection.has(letter):
                    yield letter


def _is_by_group(selection: Selection) -> bool:
    """Return whether a selection has a group as a whole or not at all."""
    return not selection.offsets and selection.since is None and selection.until is None


def _place_of(letter: Letter) -> Place:
    return letter.record.partition, letter.record.offset


def _without_value(record: Record) -> OriginalRecord:
    cut = tuple((name, raw) for name, raw in record.headers if name == CUT)
    return OriginalRecord(record.topic, record.partition, record.offset, record.timestamp, None, None, cut)
