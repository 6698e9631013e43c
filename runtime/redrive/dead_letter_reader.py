"""Reading the dead-letter topic from outside: which letters were sent again, then the letters themselves, in batches."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..kafka import offset_ranges
from ..kafka.offset_ranges import OffsetRange
from ..settings.settings import KafkaSettings
from ..wire.dead_letter_records import Letter, Selection, marked_offset, read_letter

Redriven = dict[int, set[int]]
"""By partition of the dead-letter topic, the offsets of the letters that were sent again."""


class LetterScan:
    """One look at the topic as it is now: the ranges are frozen, markers are read before letters.

    Memory: an integer for each letter that was sent again, and one fetch of records.
    """

    def __init__(
        self, kafka: KafkaSettings, topic: str, progress: Callable[[int], None] = lambda records: None
    ) -> None:
        """`progress` is told how many offsets were passed; there are `offsets` in all."""
        self._kafka, self._topic, self._progress = kafka, topic, progress
        self._ranges: list[OffsetRange] = []
        self.redriven: Redriven = {}
        self.foreign = 0
        """Records that are neither a dead letter of ours nor a marker, and those that cannot be unpacked."""

    @property
    def offsets(self) -> int:
        """How many offsets `read` passes."""
        return sum(each.records for each in self._ranges)

    async def read_markers(self) -> None:
        """Freeze the topic's ranges and note which letters were sent again. Raises SetupError where there is no topic."""
        self._ranges = await offset_ranges.freeze(self._kafka, [[self._topic]])
        self.redriven = {}

        def take(number: int, records: list[Any]) -> None:
            for record in records:
                if (offset := marked_offset(record)) is not None:
                    self.redriven.setdefault(record.partition, set()).add(offset)

        await offset_ranges.read(self._kafka, self._ranges, take)

    async def read(self, selection: Selection, handle: Callable[[Sequence[Letter]], Awaitable[None]]) -> None:
        """Hand the selected letters to `handle`, those of a partition in their order, one fetch at a time."""
        self.foreign = 0
        waiting: list[Letter] = []

        def take(number: int, records: list[Any]) -> None:
            for record in records:
                if (letter := self._letter(record)) is not None and selection.has(letter):
                    waiting.append(letter)

        async def work_off() -> None:
            letters = waiting.copy()
            waiting.clear()
            if letters:
                await handle(letters)

        await offset_ranges.read(
            self._kafka,
            self._narrowed(selection),
            take,
            unreadable=lambda number, offset: self._count_foreign(),
            progress=self._progress,
            after_fetch=work_off,
        )
        await work_off()

    def _narrowed(self, selection: Selection) -> list[OffsetRange]:
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
