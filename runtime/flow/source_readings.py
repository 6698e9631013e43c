"""What metrics read of the consumer when somebody scrapes. Nothing here changes anything."""

import time
from collections.abc import Callable, Collection
from typing import Any

from aiokafka.structs import TopicPartition

from ..kafka.offset_tracker import Tracker
from .fetch_watch import FetchTimes

ByPartition = dict[tuple[str, ...], float]
"""(topic, partition) to a value. What is not known is absent."""


class SourceReadings:
    """Values by partition of this process: none before its consumer has started, and none after it has stopped."""

    def __init__(
        self,
        consumer: Callable[[], Any],
        tracker: Tracker[TopicPartition],
        times: FetchTimes[TopicPartition],
        paused: Collection[TopicPartition],
        retries: Collection[str] = (),
    ) -> None:
        """`retries`: topics whose records wait on purpose: neither lag nor age counts them."""
        self._retries = retries
        self._consumer, self._tracker, self._times, self._paused = consumer, tracker, times, paused

    def _assignment(self) -> set[TopicPartition]:
        consumer = self._consumer()
        return set(consumer.assignment()) if consumer is not None else set()

    def _of_retries(self) -> set[TopicPartition]:
        return {partition for partition in self._assignment() if partition.topic in self._retries}

    def retries(self) -> ByPartition:
        """Return by partition of the topic of retries the records that are not finished."""
        return self._behind(self._of_retries())

    def known_partitions(self, topic: str) -> int | None:
        """Return how many partitions the consumer takes a topic to have; None while it knows nothing of it."""
        consumer = self._consumer()
        found = consumer.partitions_for_topic(topic) if consumer is not None else None
        return len(found) if found else None

    def assigned(self) -> int:
        return len(self._assignment())

    def paused(self) -> int:
        return len(self._paused)

    def lag(self) -> ByPartition:
        """Return the records that are not finished.

        The end is that of the last finished transaction: what lies behind it is not to be read yet.
        """
        return self._behind(self._assignment() - self._of_retries())

    def _behind(self, partitions: set[TopicPartition]) -> ByPartition:
        lag: ByPartition = {}
        for partition in partitions:
            progress, end = self._tracker.known(partition), self._consumer().last_stable_offset(partition)
            if progress is not None and progress.committable is not None and end is not None and end >= 0:
                lag[_labels(partition)] = max(end - progress.committable, 0)
        return lag

    def oldest_unfinished(self) -> ByPartition:
        """Return the seconds since the oldest unfinished record was fetched; 0 when all are finished."""
        now = time.monotonic()
        asked = self._assignment() - self._of_retries()
        known = {partition: self._tracker.known(partition) for partition in asked}
        return {_labels(p): progress.oldest_s(now) for p, progress in known.items() if progress is not None}

    def since_fetch(self) -> ByPartition:
        """Return the seconds since the last successful fetch."""
        assigned = self._assignment()
        return {_labels(p): seconds for p, seconds in self._times.seconds(time.monotonic()).items() if p in assigned}


def _labels(partition: TopicPartition) -> tuple[str, str]:
    return partition.topic, str(partition.partition)


def position_now(consumer: Any, partition: TopicPartition) -> int | None:
    """Return where a consumer goes on in a partition; None where it has no position. The client's own call waits for one."""
    subscription = consumer._subscription.subscription
    assignment = subscription.assignment if subscription is not None else None
    if assignment is None or partition not in assignment.tps:
        return None
    state = assignment.state_value(partition)
    return int(state.position) if state.has_valid_position else None
