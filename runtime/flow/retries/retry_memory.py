"""Parts of records that wait in memory for their next attempt. Pure: the caller passes the time."""

from collections.abc import Callable
from typing import NamedTuple

from aiokafka.structs import TopicPartition

from ...output.bounds import PartitionBytes
from ...output.outcome import Work
from ...settings.retry_policy import DelayQueue


class PendingRetry(NamedTuple):
    """A part of a record that waits in memory for its next attempt."""

    partition: TopicPartition
    """The partition from which it was read."""
    work: Work
    """`work.attempts` counts the attempt to come."""
    size: int
    """Bytes in memory."""
    agent: str | None
    """The agent to ask; None: all that read the topic."""
    due: float
    """In seconds since 1970."""
    requeue: Callable[[], None]
    """Starts the attempt."""


class RetryMemory:
    """Parts by the time at which they are due, and their bytes by partition."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._queue: DelayQueue[PendingRetry] = DelayQueue()
        self.bytes = PartitionBytes()

    def __len__(self) -> int:
        return len(self._queue)

    def has_room(self, size: int) -> bool:
        """Return whether a part of `size` bytes fits into the limit of the process."""
        return self.bytes.total + size <= self._max_bytes

    @property
    def is_full(self) -> bool:
        return self.bytes.total >= self._max_bytes

    def add(self, pending: PendingRetry) -> None:
        """Add a part, also above the limit: the caller decides what waits elsewhere."""
        self._queue.push(pending, pending.due)
        self.bytes.add(pending.partition, pending.size)

    def pop_due(self, now: float) -> list[PendingRetry]:
        """Remove and return the parts that are due, earliest first."""
        return self._forget(self._queue.pop_due(now))

    def take(self, chosen: Callable[[PendingRetry], bool]) -> list[PendingRetry]:
        """Remove and return the chosen parts, earliest first."""
        return self._forget(self._queue.take(chosen))

    def clear(self) -> None:
        self._queue.clear()
        self.bytes.clear()

    def _forget(self, removed: list[PendingRetry]) -> list[PendingRetry]:
        for pending in removed:
            self.bytes.add(pending.partition, -pending.size)
        return removed
