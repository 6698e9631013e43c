"""Parses and queues fetched records up to the bounds of their partition, and reports when it has room again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from aiokafka.structs import ConsumerRecord, TopicPartition

from ...schemas.deadletter import DeadLetterReason as Reason
from ..agent.routes import Route
from ..errors import RecordError
from ..field_paths import FieldPaths
from ..kafka.offset_tracker import Progress, Tracker
from ..observe.tracing import Tracing
from ..output.bounds import Bounds, estimated_cost
from ..output.delivery import Delivery, Rejected
from ..wire.request import read_request
from .admission import Admission, Waiting

Batches = Mapping[TopicPartition, Sequence[ConsumerRecord]]
Full = dict[TopicPartition, int | None]
"""Partitions to pause now. The offset, if any, is that of the first record that was not taken: fetch from there again."""


class EarlierLog(NamedTuple):
    """The lane of records that still wait from the earlier log of a partition with a new log."""

    partition: TopicPartition


Queue = Admission[TopicPartition | EarlierLog, Delivery | Rejected]


class Runner(Protocol):
    """Receives all records of its topics instead of the queue."""

    partition_bytes: int

    def receive(self, partition: TopicPartition, records: Sequence[ConsumerRecord], progress: Progress) -> int | None:
        """Queue delivered records; returns the offset of the first record that was not taken."""
        ...

    def is_full(self, partition: TopicPartition) -> bool: ...
    def has_room(self, partition: TopicPartition) -> bool: ...


class Intake:
    """Owns the set of full partitions.

    Invariants:
    - the waiting records of a partition are bounded in bytes, wherever they wait, and in tokens except for the excess of
      one fetch;
    - the delivered and uncommitted records of a partition are bounded in number;
    - rejected records wait in the same queue as valid ones, within the same bounds;
    - a partition reported as full is reported once as having room again.
    """

    def __init__(
        self,
        queue: Queue,
        tracker: Tracker[TopicPartition],
        bounds: Bounds,
        *,
        runners: Mapping[str, Runner],
        max_value_bytes: int,
        max_hops: int | None,
        tracing: Tracing | None,
        fields: Mapping[str, FieldPaths] | None = None,
        blocks: Callable[[TopicPartition], bool] = lambda partition: False,
        held_bytes: Callable[[TopicPartition], int] = lambda partition: 0,
    ) -> None:
        """`runners`: by topic; all other topics have a route. `fields`: field paths of topics with values in another format.
        `blocks`: whether a partition must be paused because its agents cannot answer. `held_bytes`: of the records of a
        partition that wait outside of the queue: for suspended agents, for another attempt, for a handler.
        """
        self._fields = fields or {}
        self._blocks, self._held_bytes = blocks, held_bytes
        self._queue, self._tracker, self._bounds = queue, tracker, bounds
        self._runners = runners
        self._max_value_bytes, self._max_hops = max_value_bytes, max_hops
        self._tracing = tracing
        self._full: dict[TopicPartition, Progress] = {}
        self._divide_bytes(1)  # records may arrive before `assign` is called

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Divide the waiting bytes among the assigned partitions."""
        self._divide_bytes(len([*partitions]))

    def _divide_bytes(self, partitions: int) -> None:
        limit = self._bounds.waiting_bytes(partitions)
        self._queue.lane_bytes = limit
        for runner in self._runners.values():
            runner.partition_bytes = limit

    def take(self, batches: Batches, routes: Mapping[str, Route]) -> Full:
        """Queue fetched records, of each partition as many as it has room for. Returns the full partitions."""
        full: Full = {}
        for partition, records in batches.items():
            progress = self._tracker.progress(partition)
            room = max(self._bounds.uncommitted - progress.uncommitted, 0)
            taken = records if len(records) <= room else records[:room]
            runner = self._runners.get(partition.topic)
            if runner is not None:
                left_at = runner.receive(partition, taken, progress)
            else:
                left_at = self._read_all(partition, taken, progress, routes[partition.topic])
            if left_at is None and len(taken) < len(records):
                left_at = records[len(taken)].offset
            if left_at is not None or self._is_full(partition, progress):
                self._full[partition] = progress
                full[partition] = left_at
        return full

    def reject_unreadable(self, partition: TopicPartition, offset: int, why: str) -> bool:
        """Queue the dead letter of a record that the client could not unpack; True when its partition is now full."""
        progress = self._tracker.progress(partition)
        if not progress.begin(offset):
            return False
        record, error = make_unreadable(partition, offset, why)
        rejected = Rejected(record, progress, None, error)
        self._queue.add(partition.topic, partition, [(rejected, 1, rejected.bytes)])
        if self._is_full(partition, progress):
            self._full[partition] = progress
        return partition in self._full

    def requeue(self, partition: TopicPartition, delivery: Delivery) -> None:
        """Queue another attempt at a record of `partition`, after the records that wait, under its route's topic.

        Its offset is already tracked, so only its bytes count. They may exceed the partition's bound: the caller bounds the
        records that it holds for another attempt.
        """
        tokens = estimated_cost(delivery.given, delivery.route.max_tokens, delivery.route.windows)
        self._queue.add(delivery.route.topic, partition, [(delivery, tokens, delivery.bytes)])

    def can_hold(self, partition: TopicPartition, size: int) -> bool:
        """Return whether `size` more bytes of a partition may wait outside of the queue.

        No more than half of the partition's share, so that its other records go on, and what waits in the queue counts.
        """
        held, limit = self._held_bytes(partition) + size, self._queue.lane_bytes
        return held <= limit // 2 and held + self._queue.bytes_in(partition) <= limit

    def has_room_for_retry(self, partition: TopicPartition, active_bytes: int) -> bool:
        """Return whether a due record of a partition of the topic of retries may be queued.

        What is tried now takes a quarter of the partition's share, as does what is fetched of it and not due. The other half
        is for what waits on. `active_bytes`: of records that handlers are about to try.
        """
        active_bytes += self._queue.bytes_in(partition)
        return active_bytes < self._queue.lane_bytes // 4 and not self._queue.is_full(partition)

    def is_at_bound(self, partition: TopicPartition) -> bool:
        """Return whether a partition has reached its bound of uncommitted records."""
        progress = self._tracker.known(partition)
        return progress is not None and progress.uncommitted >= self._bounds.uncommitted

    def pop_reopened(self) -> list[TopicPartition]:
        """Return, once each, the partitions that were full and have room again."""
        if not self._full:
            return []
        most = self._bounds.uncommitted // 2
        found = [
            partition
            for partition, progress in self._full.items()
            if progress.uncommitted <= most and self._has_room(partition)
        ]
        for partition in found:
            del self._full[partition]
        return found

    def begin_new_log(self, partition: TopicPartition) -> None:
        """Reset the room of a partition with a new log. Call it after the tracker has restarted the partition.

        Records that wait from the earlier log move to a separate lane, so that the new log's records alternate with them. If
        that lane is still in use, they stay ahead of the new records: a partition has at most two lanes.
        """
        self._queue.rename(partition, EarlierLog(partition))
        if partition in self._full:
            self._full[partition] = self._tracker.progress(partition)

    def clear(self) -> None:
        """Clear the set of full partitions, after the queues have been emptied for a new assignment."""
        self._full.clear()

    def _is_full(self, partition: TopicPartition, progress: Progress) -> bool:
        runner = self._runners.get(partition.topic)
        # Records of a handler's topic that could not be unpacked wait in the queue.
        return (
            self._queue.is_full(partition, self._held_bytes(partition))
            or progress.uncommitted >= self._bounds.uncommitted
            or (runner is not None and runner.is_full(partition))
            or self._blocks(partition)
        )

    def _has_room(self, partition: TopicPartition) -> bool:
        runner = self._runners.get(partition.topic)
        room = self._queue.has_room(partition, self._held_bytes(partition)) and (
            runner is None or runner.has_room(partition)
        )
        return room and not self._blocks(partition)

    def _read_all(
        self,
        partition: TopicPartition,
        records: Sequence[ConsumerRecord],
        progress: Progress,
        route: Route,
    ) -> int | None:
        """Parse and queue records; returns the offset of the first record that exceeds the bytes left."""
        left = self._queue.bytes_left(partition, self._held_bytes(partition))
        take_any_size = not self._queue.bytes_in(partition)
        items: list[Waiting[Delivery | Rejected]] = []
        left_at = None
        for record in records:
            item = self._read(record, progress, route)
            size = item.bytes
            if size > left and not take_any_size:
                left_at = record.offset
                break
            if not progress.begin(record.offset):
                continue
            take_any_size = False
            left -= size
            tokens = 1
            if isinstance(item, Delivery):
                tokens = estimated_cost(item.given, route.max_tokens, route.windows)
                if self._tracing is not None:
                    item.trace(self._tracing)
            items.append((item, tokens, size))
        self._queue.add(partition.topic, partition, items)
        return left_at

    def _read(self, record: ConsumerRecord, progress: Progress, route: Route) -> Delivery | Rejected:
        request = None
        try:
            request = read_request(record, self._max_value_bytes, self._max_hops, self._fields.get(record.topic))
            delivery = Delivery(record, progress, request)
            delivery.settle(route)
        except RecordError as error:
            return Rejected(record, progress, request, error)
        return delivery


def make_unreadable(partition: TopicPartition, offset: int, why: str) -> tuple[ConsumerRecord, RecordError]:
    """Return a placeholder with the coordinates of a record that the client could not unpack, and its error."""
    record = ConsumerRecord(partition.topic, partition.partition, offset, -1, 0, None, None, None, -1, -1, ())
    return record, RecordError(Reason.UNREADABLE, f"the record cannot be read: {why}")
