"""Reads fixed offset ranges of topics without a group: each record once, and none beyond the end."""

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
from .broker_diagnosis import describe_refusal
from .consumer_stop import stop_consumer
from .topics import fetch_partition_counts, require_topics
from .unreadable import POLL_MS, is_unreadable, read_next

_CHUNK_RECORDS: Final = 5000
_FETCH_BYTES: Final = 8 * 1024 * 1024
"""Bytes per fetch over all partitions; about twice as much is held in memory."""
_SKIP_RECORDS: Final = 5000
"""Number of unwanted records from which a seek beyond them is faster than reading them."""


class OffsetRange(NamedTuple):
    """The records of one partition from `start` up to, and not including, `end`."""

    topic: str
    partition: int
    start: int
    end: int

    @property
    def records(self) -> int:
        """The number of offsets, including gaps."""
        return self.end - self.start


Take = Callable[[int, list[ConsumerRecord]], None]
"""Called with the index of the range and its next records."""


async def freeze(kafka: KafkaSettings, topics: Sequence[Sequence[str]]) -> list[OffsetRange]:
    """Return the current ranges of the topics, by topic and partition.

    The ends of one group of topics are read before those of the next, so that a later group's ranges contain everything
    that records of an earlier group refer to. Raises SetupError when a topic is missing.
    """
    counts = await require_topics(kafka, [topic for group in topics for topic in group])
    ranges = []
    async with _consumer(kafka) as consumer:
        for group in topics:
            partitions = [TopicPartition(topic, n) for topic in sorted(set(group)) for n in range(counts[topic])]
            ends = await consumer.end_offsets(partitions)
            starts = await consumer.beginning_offsets(partitions)
            ranges += [OffsetRange(p.topic, p.partition, min(starts[p], ends[p]), ends[p]) for p in partitions]
    return ranges


async def check(kafka: KafkaSettings, ranges: Iterable[OffsetRange]) -> None:
    """Raise SetupError when some of these records are no longer on the broker, with a partition and what is left."""
    wanted = [each for each in ranges if each.records]
    counts = await fetch_partition_counts(kafka)
    for each in wanted:
        if each.partition >= counts.get(each.topic, 0):
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
    """Return the parts of the ranges from the first record at or after `since` to the first at or after `until`.

    Both are Unix times in seconds, compared with record timestamps; None leaves that bound unchanged.
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
    """Call `take` with all records of the ranges, in partition order.

    - `unreadable` is called with range index and offset of each record that the client cannot unpack; it is skipped.
    - `next_wanted` returns, for a range index and a position, the next offset of interest; earlier records may be
      skipped.
    - `progress` is called with the number of offsets passed.
    - `after_fetch` is awaited between fetches. Process the records there to hold one fetch in memory at most.

    Raises SetupError when records are deleted or may not be read, MurmuraError when the broker does not answer. Errors
    of `take` are passed on.
    """
    reading = _Reading(kafka, ranges, take, unreadable, next_wanted, progress)
    reading.after_fetch = after_fetch
    async with _consumer(kafka) as consumer:
        await reading.run(consumer)


class _Reading:
    """One pass over ranges. `_at` has the next offset of each open partition; a partition closes at its end."""

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
        """Process one fetch. Skips a record that cannot be unpacked, and waits after a retriable error."""
        try:
            await self._fetch(consumer)
        except OffsetOutOfRangeError:
            await _refuse_gone(consumer, [self._ranges[self._number[p]] for p in self._at])
            raise
        except KafkaError as error:
            # An error of the broker or of this client, not of a record.
            if not error.retriable:
                raise
            await asyncio.sleep(POLL_MS / 1000)

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        try:
            batches: Mapping[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
                *self._at, timeout_ms=POLL_MS, max_records=_CHUNK_RECORDS
            )
        except Exception as error:
            # `getmany` has dropped the records of the other partitions.
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
        """Read each partition separately, up to and past a record that cannot be unpacked."""
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
            # Also without records: transactions leave offsets that hold none.
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
            raise _explain(kafka, error) from error
        finally:
            await stop_consumer(consumer)


def _explain(kafka: KafkaSettings, error: KafkaError) -> MurmuraError:
    if isinstance(error, TopicAuthorizationFailedError):
        return SetupError(describe_refusal(kafka, error))
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, UnsupportedCodecError):
        return SetupError(f"{kafka.bootstrap_servers}: records cannot be read: {why}")
    return MurmuraError(f"{kafka.bootstrap_servers}: the broker could not be read from: {why}")
