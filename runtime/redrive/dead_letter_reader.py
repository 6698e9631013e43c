"""Reads the dead-letter topic: first which letters were redriven, then the letters themselves, in batches."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..kafka import offset_ranges
from ..kafka.offset_ranges import OffsetRange
from ..settings.settings import KafkaSettings
from ..wire.dead_letter_records import Letter, Selection, marked_offset, read_letter

Redriven = dict[int, set[int]]
"""By partition of the dead-letter topic: the offsets of redriven letters."""


class LetterScan:
    """One scan of the topic: the offset ranges are fixed first, markers are read before letters.

    Memory: one integer per redriven letter, and one fetch of records.
    """

    def __init__(
        self, kafka: KafkaSettings, topic: str, progress: Callable[[int], None] = lambda records: None
    ) -> None:
        """`progress` is called with the number of offsets passed; the total is `offsets`."""
        self._kafka, self._topic, self._progress = kafka, topic, progress
        self._ranges: list[OffsetRange] = []
        self.redriven: Redriven = {}
        self.foreign = 0
        """Number of records that are neither dead letters nor markers of ours, or that cannot be unpacked."""

    @property
    def offsets(self) -> int:
        """The number of offsets that `read` passes."""
        return sum(each.records for each in self._ranges)

    async def read_markers(self) -> None:
        """Fix the topic's ranges and read which letters were redriven. Raises SetupError when the topic is missing."""
        self._ranges = await offset_ranges.freeze(self._kafka, [[self._topic]])
        self.redriven = {}

        def take(number: int, records: list[Any]) -> None:
            for record in records:
                if (offset := marked_offset(record)) is not None:
                    self.redriven.setdefault(record.partition, set()).add(offset)

        await offset_ranges.read(self._kafka, self._ranges, take)

    async def read(self, selection: Selection, handle: Callable[[Sequence[Letter]], Awaitable[None]]) -> None:
        """Pass the selected letters to `handle`, in partition order, one fetch at a time."""
        self.foreign = 0
        waiting: list[Letter] = []

        def take(number: int, records: list[Any]) -> None:
            for record in records:
                if (letter := self._letter(record)) is not None and selection.has(letter):
                    waiting.append(letter)

        async def process_fetched() -> None:
            letters = waiting.copy()
            waiting.clear()
            if letters:
                await handle(letters)

        await offset_ranges.read(
            self._kafka,
            self._narrow_ranges(selection),
            take,
            unreadable=lambda number, offset: self._count_foreign(),
            progress=self._progress,
            after_fetch=process_fetched,
        )
        await process_fetched()

    def _narrow_ranges(self, selection: Selection) -> list[OffsetRange]:
        if not selection.offsets:
            return self._ranges
        narrowed = []
        for each in self._ranges:
            start, end = selection.offsets.get(each.partition, (each.start, each.start))
            start = min(max(start, each.start), each.end)
            narrowed.append(each._replace(start=start, end=max(min(end, each.end), start)))
        return narrowed

    def _letter(self, record: Any) -> Letter | None:
        fields = read_letter(record)
        if fields is None:
            if marked_offset(record) is None:
                self._count_foreign()
            return None
        return Letter(record, fields, record.offset in self.redriven.get(record.partition, ()))

    def _count_foreign(self) -> None:
        self.foreign += 1
