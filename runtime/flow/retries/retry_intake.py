"""Holds records of the topic of retries until they are due. Pure: the caller passes the time.

Each partition of that topic is a step with one pause, so its records become due in their order, and the partition is
paused while the first one waits.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from aiokafka.structs import ConsumerRecord, TopicPartition

from ...errors import RecordError
from ...kafka.offset_tracker import Progress
from ...output.bounds import MIB, held_bytes
from ...settings.retry_policy import STEPS_S, wake_time
from ...wire.retry_record import Retry, read_retry


class FetchedRetry(NamedTuple):
    """A parsed record of the topic of retries."""

    record: ConsumerRecord
    progress: Progress
    retry: Retry
    wake: float
    """When it is due, in seconds since 1970."""


class Unusable(NamedTuple):
    """A record of the topic of retries without the headers that a retry needs."""

    record: ConsumerRecord
    progress: Progress
    error: RecordError


class RetryIntake:
    """Owns the fetched records of the topic of retries that are not due.

    Invariants:
    - records of a partition leave in order;
    - a partition with waiting records is paused, so at most one fetch of each partition waits, and of that no more bytes
      than the caller allows, or one record;
    - records of other apps are finished at once: the group of each app reads the whole topic.
    """

    def __init__(self, app: str, steps_s: Sequence[float] = STEPS_S) -> None:
        self._app, self._steps_s = app, steps_s
        self._queues: dict[TopicPartition, deque[FetchedRetry]] = {}

    def holds(self, partition: TopicPartition) -> bool:
        """Return whether records of a partition wait."""
        return bool(self._queues.get(partition))

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def receive(
        self, partition: TopicPartition, records: Sequence[ConsumerRecord], progress: Progress, most_bytes: int = MIB
    ) -> tuple[int | None, list[Unusable]]:
        """Queue fetched records; returns the offset of the first record that was not taken, and the unusable records."""
        unusable: list[Unusable] = []
        queue = self._queues.setdefault(partition, deque())
        left = most_bytes - sum(held_bytes(fetched.record) for fetched in queue)
        left_at = None
        for record in records:
            left -= held_bytes(record)
            if left < 0 and queue:
                left_at = record.offset
                break
            if not progress.begin(record.offset):
                continue
            try:
                retry = read_retry(record)
            except RecordError as error:
                unusable.append(Unusable(record, progress, error))
                continue
            if retry.app != self._app:
                progress.finish(record.offset)
                continue
            wake = wake_time(partition.partition, record.timestamp / 1000, retry.not_before, self._steps_s)
            queue.append(FetchedRetry(record, progress, retry, wake))
        return left_at, unusable

    def take_due(
        self, now: float, most: int, has_room: Callable[[TopicPartition], bool] = lambda partition: True
    ) -> Iterator[FetchedRetry]:
        """Remove and yield up to `most` due records, in order within each partition, alternating between partitions.

        `has_room` is asked before each record, so that it counts the ones before.
        """
        ready, taken = [*self._queues.items()], 0
        while ready:
            ready = [(partition, queue) for partition, queue in ready if queue and queue[0].wake <= now]
            ready = [(partition, queue) for partition, queue in ready if has_room(partition)]
            for _, queue in ready:
                if taken == most:
                    return
                taken += 1
                yield queue.popleft()

    def next_wake(self) -> float | None:
        """Return when the next record is due, in seconds since 1970; None when nothing waits."""
        return min((queue[0].wake for queue in self._queues.values() if queue), default=None)

    def overdue_s(self, now: float) -> float:
        """Return for how long the most overdue record has been due; 0 when none is."""
        wake = self.next_wake()
        return 0.0 if wake is None else max(now - wake, 0.0)

    def clear(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Drop the waiting records of all partitions, or of some: they will be delivered again."""
        for partition in list(self._queues if partitions is None else partitions):
            self._queues.pop(partition, None)
