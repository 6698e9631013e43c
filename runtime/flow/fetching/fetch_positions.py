"""The read position of each partition: after received records, after unreadable records, and in a new log."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

from ...kafka.offset_tracker import Tracker
from ...kafka.start_positions import StartPositions
from ...observe.logs import get_logger
from ...observe.metrics import Metrics
from .source_readings import assignment_now, position_now

log = get_logger(__name__)

_LOOKUP_S = 2.0


class FetchPositions:
    """Owns the position of each partition: the offset after the last record received under this assignment.

    Invariants:
    - nothing is noted between two assignments;
    - the client never resets a position: if the log does not contain it, `StartPositions` decides;
    - after records were lost, no partition is fetched from a position behind them;
    - the result of a lookup is used only if assignment and position have not changed since;
    - a log that ends before the position is a new one. A fetch detects that; `find_new_logs` checks paused partitions,
      which are not fetched.
    """

    def __init__(
        self,
        consumer: Callable[[], AIOKafkaConsumer],
        starts: StartPositions,
        tracker: Tracker[TopicPartition],
        metrics: Metrics,
        on_new_log: Callable[[TopicPartition], None],
    ) -> None:
        """`on_new_log` is called with a partition that has a new log, after its progress has been restarted."""
        self._consumer, self._starts, self._tracker, self._metrics = consumer, starts, tracker, metrics
        self._on_new_log = on_new_log
        self._positions: dict[TopicPartition, int] = {}
        self._ended: Any = None
        """The client's object of the assignment that ended last."""
        self._earlier: dict[TopicPartition, int] = {}
        """The last positions under earlier assignments."""
        self._short: set[TopicPartition] = set()
        """Partitions whose log ended before the position at the last call of `find_new_logs`."""

    def clear(self) -> None:
        """Drop all positions at the end of the assignment."""
        self._ended = assignment_now(self._consumer())
        self._earlier |= self._positions
        self._positions.clear()
        self._short.clear()

    @property
    def is_between(self) -> bool:
        """Return whether the assignment has ended, and the group has not made the next one.

        The client keeps the ended one until then. What is read of it would count as progress under the next.
        """
        return self._ended is not None and assignment_now(self._consumer()) is self._ended

    def advance(self, batches: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Record received records. A record before the position belongs to a new log."""
        for partition, records in batches.items():
            if records[0].offset < self._positions.get(partition, 0):
                self._begin_new_log(partition, records[0].offset)
            self._positions[partition] = records[-1].offset + 1

    def skip(self, partition: TopicPartition, offset: int) -> None:
        """Record that `offset` is unreadable and was skipped."""
        self._positions[partition] = offset + 1

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue at `offset`, the first record that was not taken."""
        self._consumer().seek(partition, offset)
        self._positions[partition] = offset

    def follow(self, partitions: Iterable[TopicPartition]) -> None:
        """Record the client's positions, which also pass transaction markers and aborted records."""
        for partition in () if self.is_between else partitions:
            position = position_now(self._consumer(), partition)
            if position is not None:
                self._positions[partition] = position
                self._tracker.progress(partition).follow(position)

    def rewind(self) -> None:
        """Seek each partition to its position after the last received record.

        A partition of which nothing was received loses its position in the client, as if it had just been assigned. It is
        not fetched until the client has found the committed offset, or `begin` the start.
        """
        consumer = self._consumer()
        for partition in consumer.assignment():
            if (position := self._positions.get(partition)) is not None:
                consumer.seek(partition, position)
            else:
                consumer._fetcher.request_offset_reset([partition], None)

    async def begin(self, partitions: Iterable[TopicPartition]) -> None:
        """Set the start of partitions without a position."""
        epoch, consumer = self._tracker.epoch, self._consumer()
        for partition in partitions:
            if position_now(consumer, partition) is not None:
                continue
            offset = await consumer.committed(partition)
            is_lost = offset is None  # a group loses its offsets of a topic that is deleted
            if is_lost:
                offset = await self._starts.find_first(consumer, partition)
            if epoch != self._tracker.epoch or self.is_between or partition not in consumer.assignment():
                return
            self.seek(partition, offset)
            if is_lost and offset < (earlier := self._earlier.get(partition, 0)):
                self._begin_new_log(partition, offset, earlier)
            else:
                self._tracker.progress(partition).follow(offset)

    async def find_new_start(self, partition: TopicPartition, position: int) -> None:
        """Continue at the start of a log that does not contain the position."""
        epoch, consumer = self._tracker.epoch, self._consumer()
        found = await self._starts.find_after(consumer, partition, position)
        if self._has_moved(partition, position, epoch) or found.cause == "lagging_replica":
            return
        consumer.seek(partition, found.offset)
        if found.cause == "new_log":
            self._begin_new_log(partition, found.offset)
        else:
            self._positions[partition] = found.offset
            self._tracker.progress(partition).follow(found.offset)
            self._metrics.expired(partition.topic, found.offset - position)
            log.error(
                "records were deleted unread",
                records=found.offset - position,
                topic=partition.topic,
                partition=partition.partition,
            )

    async def find_new_logs(self, partitions: Collection[TopicPartition]) -> None:
        """Compare the positions of paused partitions with the current ends of their logs.

        A log must be found short twice in a row: a false alarm would answer all its records again. A topic that does not
        exist, or whose broker does not answer, is skipped.
        """
        short: set[TopicPartition] = set()
        for topic in {partition.topic for partition in partitions}:
            present = self._consumer().partitions_for_topic(topic) or ()
            existing = [p for p in partitions if p.topic == topic and p.partition in present and p in self._positions]
            if existing:
                short |= await self._find_short(existing)
        self._short = short

    async def _find_short(self, partitions: Sequence[TopicPartition]) -> set[TopicPartition]:
        """Return the partitions whose logs end before their positions; restarts those found short last time, too."""
        epoch, consumer = self._tracker.epoch, self._consumer()
        positions = {partition: self._positions[partition] for partition in partitions}
        try:
            async with asyncio.timeout(_LOOKUP_S):
                ends = await consumer.end_offsets(partitions)
                short = {partition for partition, end in ends.items() if end < positions[partition]}
                confirmed = short & self._short
                beginnings = await consumer.beginning_offsets(confirmed) if confirmed else {}
        except (KafkaError, IllegalStateError, OSError, TimeoutError):
            return set()
        for partition, beginning in beginnings.items():
            if not self._has_moved(partition, positions[partition], epoch):
                consumer.seek(partition, beginning)
                self._begin_new_log(partition, beginning)
        return short - confirmed

    def _has_moved(self, partition: TopicPartition, position: int, epoch: int) -> bool:
        has_ended = epoch != self._tracker.epoch or self.is_between
        return has_ended or position_now(self._consumer(), partition) != position

    def _begin_new_log(self, partition: TopicPartition, offset: int, expected: int | None = None) -> None:
        """Restart the progress at `offset`: the topic was recreated, or its log was truncated.

        `expected`: where the earlier log was to be read on; default: the position.
        """
        log.warning(
            "a log has begun anew",
            offset=offset,
            expected=self._positions.get(partition) if expected is None else expected,
            topic=partition.topic,
            partition=partition.partition,
        )
        self._positions[partition] = offset
        self._metrics.new_log(partition.topic)
        self._tracker.restart(partition, offset)
        self._on_new_log(partition)
