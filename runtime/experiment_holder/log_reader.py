"""Reads the logs that experiments count, without a group, from the offsets of each experiment."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka.structs import ConsumerRecord, TopicPartition

from ..experiments.clock_skew import AHEAD_MINUTES
from ..experiments.log_times import LogTimes
from ..experiments.run import Content, ExperimentRun, Skipped
from ..experiments.units import Place
from ..kafka.groupless_reader import PartitionsReader, open_reader
from ..kafka.topics import is_mock_cluster
from ..observe.logs import get_logger
from ..settings.settings import KafkaSettings
from .records import UNREADABLE, Read

log = get_logger(__name__)

_FETCH_BYTES: Final = 4 * 1024 * 1024
_POLL_MS: Final = 200
_FETCH_RECORDS: Final = 500
_AT_ONCE: Final = 25
"""Records that are read before other tasks of the process run: about 1 ms."""

Decode = Callable[[ConsumerRecord], Read | None]


class LogReader:
    """A started consumer of the logs, and how far it has read them."""

    def __init__(self, consumer: Any, decoders: Mapping[str, Decode], *, finds_times: bool = True) -> None:
        """`decoders`: by topic. `finds_times`: whether the broker finds records by time; else logs are read from their start."""
        self._finds_times = finds_times
        self._consumer, self._decoders = consumer, decoders
        self._fetched: list[ConsumerRecord | tuple[TopicPartition, int]] = []
        self._reader = PartitionsReader(consumer, self._fetched.extend, self._note_unreadable)
        self._times = LogTimes()
        self.behind = 0
        """Records that were not read yet at the last look."""

    async def begin(self, runs: Collection[ExperimentRun]) -> None:
        """Go back, or on, to where the first of these experiments has to read from, or to what is left of a log."""
        partitions = list(self._consumer.assignment())
        for run in runs:
            new = [each for each in partitions if name_log(each) not in run.positions]
            run.positions |= await self._find_starts(run, new)
        firsts, ends = await self._consumer.beginning_offsets(partitions), await self._consumer.end_offsets(partitions)
        for run in runs:
            for each in partitions:
                if gone := run.keep_within(name_log(each), firsts[each], ends[each]):
                    log.warning(
                        "an experiment lacks records", experiment=run.experiment.id, log=name_log(each), records=gone
                    )
        for each in partitions:
            self._consumer.seek(each, min(run.positions[name_log(each)] for run in runs))
        self._times = LogTimes()

    async def _find_starts(self, run: ExperimentRun, partitions: list[TopicPartition]) -> dict[str, int]:
        """Return by log the first record of an experiment's time; the end of a log that has none yet."""
        if not self._finds_times:
            starts = await self._consumer.beginning_offsets(partitions)
            return {name_log(each): starts[each] for each in partitions}
        ends = await self._consumer.end_offsets(partitions)
        start_ms = int(run.experiment.started.timestamp() * 1000)
        found = await self._consumer.offsets_for_times(dict.fromkeys(partitions, start_ms)) if partitions else {}
        firsts = {each: found.get(each) for each in partitions}
        return {name_log(each): ends[each] if first is None else first.offset for each, first in firsts.items()}

    async def read_more(self, runs: Collection[ExperimentRun], now_minute: int) -> None:
        """Pass one fetch on to the experiments."""
        await self._reader.read_more(_POLL_MS, _FETCH_RECORDS)
        fetched = self._fetched.copy()
        self._fetched.clear()
        for number, record in enumerate(fetched):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            read: Read | None
            if isinstance(record, tuple):
                partition, offset = record
                place, read = Place(name_log(partition), offset, now_minute), Read(Skipped(UNREADABLE))
            else:
                name = f"{record.topic}/{record.partition}"
                place = Place(name, record.offset, record.timestamp // 60_000)
                read = self._decoders[record.topic](record)
                if place.minute <= now_minute + AHEAD_MINUTES:  # else its clock is wrong
                    self._times.note(name, place.minute)
            for run in runs:
                run.read(place, _choose_content(read, run), now_minute)

    async def find_minute(self, now_minute: int) -> int | None:
        """Return the minute up to which all logs have been read; None: that is not known. `now_minute`: the clock."""
        partitions = list(self._consumer.assignment())
        ends = await self._consumer.end_offsets(partitions)
        positions = {each: await self._consumer.position(each) for each in partitions}
        self.behind = sum(max(ends[each] - positions[each], 0) for each in partitions)
        by_log = {name_log(each): offset for each, offset in positions.items()}
        return self._times.find_minute(by_log, {name_log(each): end for each, end in ends.items()}, now_minute)

    def _note_unreadable(self, partition: TopicPartition, offset: int, why: str) -> None:
        self._fetched.append((partition, offset))


@asynccontextmanager
async def open_logs(kafka: KafkaSettings, decoders: Mapping[str, Decode]) -> AsyncIterator[LogReader]:
    """Yield a reader of all partitions of these topics. Raises SetupError when one is missing."""
    options = {
        "auto_offset_reset": "earliest",  # of records that retention has deleted, what is left is read
        "isolation_level": "read_committed",
        "fetch_max_bytes": _FETCH_BYTES,
        "max_partition_fetch_bytes": _FETCH_BYTES // 4,
    }
    finds_times = not await is_mock_cluster(kafka)
    async with open_reader(kafka, list(decoders), from_beginning=False, options=options) as consumer:
        yield LogReader(consumer, decoders, finds_times=finds_times)


def name_log(partition: TopicPartition) -> str:
    """Return the name of a partition's log."""
    return f"{partition.topic}/{partition.partition}"


def _choose_content(read: Read | None, run: ExperimentRun) -> Content | None:
    """Return what a record says of an experiment; None: nothing."""
    if read is None or read.model not in (None, run.model) or read.experiment not in (None, run.experiment.id):
        return None
    return read.content
