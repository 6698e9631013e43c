"""Reading a fixed part of topics: frozen offset ranges, without a group, each record once and never one behind the end."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import (
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
)
from aiokafka.structs import ConsumerRecord, TopicPartition

from ..errors import MurmuraError, SetupError
from ..observe.logs import quiet_client
from ..settings.settings import KafkaSettings
from . import topics as topics_admin
from .broker_diagnosis import describe_refusal
from .unreadable import POLL_MS, is_unreadable, read_next

_CHUNK_RECORDS: Final = 5000
_FETCH_BYTES: Final = 8 * 1024 * 1024
"""Of all partitions together; what waits in memory is about twice as much."""
_SKIP_RECORDS: Final = 5000
"""From so many unwanted records on, it is quicker to fetch anew behind them than to read over them."""
_STOP_S: Final = 10.0


class OffsetRange(NamedTuple):
    """The records of one partition from `start` up to, and not including, `end`."""

    topic: str
    partition: int
    start: int
    end: int

    @property
    def records(self) -> int:
        """Their number, gaps counted."""
        return self.end - self.start


Take = Callable[[int, list[ConsumerRecord]], None]
"""Told the number of the range and its next records."""


async def freeze(kafka: KafkaSettings, topics: Sequence[Sequence[str]]) -> list[OffsetRange]:
    """Return everything that the topics hold now, by topic and partition.

    The ends of one group of topics are asked before those of the next, so that what a record of an earlier group refers
    to is in the ranges of a later one. Raises SetupError when a topic is not there.
    """
    counts = await topics_admin.require(kafka, [topic for group in topics for topic in group])
    ranges = []
    async with _consumer(kafka) as consumer:
        for group in topics:
            partitions = [TopicPartition(topic, n) for topic in sorted(set(group)) for n in range(counts[topic])]
            ends = await consumer.end_offsets(partitions)
            starts = await consumer.beginning_offsets(partitions)
            ranges += [OffsetRange(p.topic, p.partition, min(starts[p], ends[p]), ends[p]) for p in partitions]
    return ranges


async def check(kafka: KafkaSettings, ranges: Iterable[OffsetRange]) -> None:
    """SetupError when the broker does not have all of these records any more, naming a partition and what is left."""
    wanted = [each for each in ranges if each.records]
    there = await topics_admin.partitions(kafka)
    for each in wanted:
        if each.partition >= there.get(each.topic, 0):
            raise SetupError(
                f"topic {each.topic} has no partition {each.partition}: of offsets {each.start} to {each.end} nothing is left"
            )
    async with _consumer(kafka) as consumer:
        await _refuse_gone(consumer, wanted)


async def _refuse_gone(consumer: AIOKafkaConsumer, wanted: Sequence[OffsetRange]) -> None:
    partitions = [TopicPartition(each.topic, each.partition) for each in wanted]
    if not partitions:
        return
    starts, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    gone = [(each, starts[p], ends[p]) for each, p in zip(wanted, partitions, strict=True)]
    gone = [(each, start, end) for each, start, end in gone if each.start < start or each.end > end]
    if not gone:
        return
    each, start, end = gone[0]
    first, last = max(each.start, start), min(each.end, end)
    left = f"{first} to {last} is left" if first < last else "nothing is left"
    more = f" (and of {len(gone) - 1} other partitions not all)" if len(gone) > 1 else ""
    raise SetupError(
        f"{each.topic}, partition {each.partition}: of offsets {each.start} to {each.end} (exclusive) {left}{more}"
    )


async def narrow(
    kafka: KafkaSettings, ranges: Sequence[OffsetRange], since: float | None, until: float | None
) -> list[OffsetRange]:
    """Return the parts of the ranges from the first record not older than `since` up to the first not older than `until`.

    Seconds since 1970, of the records' timestamps; None leaves that end as it is.
    """
    starts, ends = [each.start for each in ranges], [each.end for each in ranges]
    async with _consumer(kafka) as consumer:
        partitions = [TopicPartition(each.topic, each.partition) for each in ranges]
        for limit, bounds in ((since, starts), (until, ends)):
            if limit is None or not partitions:
                continue
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, max(int(limit * 1000), 0)))
            for number, partition in enumerate(partitions):
                first = found.get(partition)
                offset = ranges[number].end if first is None else first.offset
                bounds[number] = min(max(offset, ranges[number].start), ranges[number].end)
    return [
        OffsetRange(each.topic, each.partition, start, max(start, end))
        for each, start, end in zip(ranges, starts, ends, strict=True)
    ]


async def read(
    kafka: KafkaSettings,
    ranges: Sequence[OffsetRange],
    take: Take,
    *,
    unreadable: Callable[[int, int], None] = lambda number, offset: None,
    next_wanted: Callable[[int, int], int] | None = None,
    progress: Callable[[int], None] = lambda records: None,
    after_fetch: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Hand all records of the ranges to `take`, those of one partition in their order.

    `unreadable` is told range and offset of what the client cannot unpack; it is stepped over. `next_wanted` may say
    from which offset on records are of use, given range and position: those before may then be left out. `progress` is
    told how many offsets were passed. `after_fetch` is awaited between fetches: whoever keeps records there until they
    are worked off holds one fetch and no more. Raises SetupError when records are gone or may not be read, MurmuraError when the
    broker stays silent. Whatever `take` raises goes through as it is.
    """
    reading = _Reading(kafka, ranges, take, unreadable, next_wanted, progress)
    reading.after_fetch = after_fetch
    async with _consumer(kafka) as consumer:
        await reading.run(consumer)


class _Reading:
    """One pass over ranges. `_at` is where each open partition goes on; a partition is closed when it is at its end."""

    def __init__(
        self,
        kafka: KafkaSettings,
        ranges: Sequence[OffsetRange],
        take: Take,
        unreadable: Callable[[int, int], None],
        next_wanted: Callable[[int, int], int] | None,
        progress: Callable[[int], None],
    ) -> None:
        self._patience_s = kafka.request_timeout_ms / 1000
        self._ranges = ranges
        self._take, self._unreadable = take, unreadable
        self._next_wanted, self._progress = next_wanted, progress
        self._number = {TopicPartition(r.topic, r.partition): i for i, r in enumerate(ranges) if r.records}
        self._at = {partition: ranges[i].start for partition, i in self._number.items()}
        self._moved = time.monotonic()
        self.after_fetch: Callable[[], Awaitable[None]] | None = None

    async def run(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(list(self._at))
        for partition, offset in list(self._at.items()):
            consumer.seek(partition, offset)
            self._move(consumer, partition, offset)
        while self._at:
            await self._read_more(consumer)
            if self.after_fetch is not None:
                began = time.monotonic()
                await self.after_fetch()
                self._moved += time.monotonic() - began
            if time.monotonic() - self._moved > self._patience_s:
                stuck, offset = next(iter(self._at.items()))
                raise MurmuraError(
                    f"{stuck.topic}, partition {stuck.partition}: the broker gave nothing from offset {offset} on "
                    f"for {self._patience_s:g} s"
                )

    async def _read_more(self, consumer: AIOKafkaConsumer) -> None:
        """Take what there is. A record that cannot be unpacked is stepped over; an error that passes is waited out."""
        try:
            await self._fetch(consumer)
        except OffsetOutOfRangeError:
            await _refuse_gone(consumer, [self._ranges[self._number[p]] for p in self._at])
            raise
        except KafkaError as error:
            # It says something of the broker or of this client, and nothing of a record.
            if not error.retriable:
                raise
            await asyncio.sleep(POLL_MS / 1000)

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        try:
            batches: Mapping[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
                *self._at, timeout_ms=POLL_MS, max_records=_CHUNK_RECORDS
            )
        except Exception as error:
            # It has lost what it had taken from other partitions.
            for partition, offset in self._at.items():
                consumer.seek(partition, offset)
            if not is_unreadable(error):
                raise
            await self._read_singly(consumer)
            return
        for partition, records in batches.items():
            self._hand_over(partition, records)
        await self._follow_positions(consumer)

    async def _read_singly(self, consumer: AIOKafkaConsumer) -> None:
        """Read each partition by itself, up to and over what cannot be unpacked there."""
        for partition in list(self._at):
            take, skip = partial(self._hand_over, partition), partial(self._note_unreadable, partition)
            try:
                await read_next(consumer, partition, take, skip)
            finally:
                await self._follow_positions(consumer, partition)

    def _hand_over(self, partition: TopicPartition, records: list[ConsumerRecord]) -> None:
        number = self._number[partition]
        end = self._ranges[number].end
        inside = records if records and records[-1].offset < end else [r for r in records if r.offset < end]
        if inside:
            self._take(number, inside)

    def _note_unreadable(self, partition: TopicPartition, offset: int, why: str) -> None:
        number = self._number[partition]
        if offset < self._ranges[number].end:
            self._unreadable(number, offset)

    async def _follow_positions(self, consumer: AIOKafkaConsumer, *partitions: TopicPartition) -> None:
        for partition in partitions or list(self._at):
            # Also where nothing came: transactions leave offsets that hold no record.
            self._move(consumer, partition, await consumer.position(partition))

    def _move(self, consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> None:
        number = self._number[partition]
        end = self._ranges[number].end
        wanted = offset
        if self._next_wanted is not None:
            wanted = min(end, self._next_wanted(number, offset))
            if wanted < end and wanted - offset < _SKIP_RECORDS:
                wanted = offset
        before = self._at[partition]
        if wanted != before:
            self._moved = time.monotonic()
            self._progress(min(wanted, end) - before)
        if wanted >= end:
            del self._at[partition]
            consumer.pause(partition)
            return
        self._at[partition] = wanted
        if wanted != offset:
            consumer.seek(partition, wanted)


@asynccontextmanager
async def _consumer(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **kafka.consumer_options(),
        auto_offset_reset="none",
        isolation_level="read_committed",
        enable_auto_commit=False,
        fetch_max_wait_ms=kafka.fetch_max_wait_ms,
        fetch_max_bytes=_FETCH_BYTES,
        max_partition_fetch_bytes=_FETCH_BYTES // 4,
        request_timeout_ms=kafka.request_timeout_ms,
    )
    with quiet_client():
        try:
            await consumer.start()
            yield consumer
        except KafkaError as error:
            raise _explained(kafka, error) from error
        finally:
            await _stop(consumer)


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Stop it, whatever state the broker is in.

    While a fetch waits to be tried again, aiokafka hands on the cancellation of its own task as if it were ours: without
    an assignment it ends that task in peace, and whatever is raised all the same stays in a task of its own.
    """
    consumer.unsubscribe()
    for _ in range(10):  # its task takes a few turns of the loop to notice
        await asyncio.sleep(0)
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait([stopping], timeout=_STOP_S)
    if not stopping.cancel() and not stopping.cancelled():
        stopping.exception()  # what went wrong with a consumer that is not needed any more is nobody's concern


def _explained(kafka: KafkaSettings, error: KafkaError) -> MurmuraError:
    if isinstance(error, TopicAuthorizationFailedError):
        return SetupError(describe_refusal(kafka, error))
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, UnsupportedCodecError):
        return SetupError(f"{kafka.bootstrap_servers}: records cannot be read: {why}")
    return MurmuraError(f"{kafka.bootstrap_servers}: the broker could not be read from: {why}")
