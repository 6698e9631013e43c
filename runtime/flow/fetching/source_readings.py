"""Values of the consumer that metrics read at a scrape. Read-only."""

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from aiokafka.structs import TopicPartition

from ...kafka.offset_tracker import Tracker
from ...observe.metrics import Metrics
from ..retries.retrying import Retrying
from .fetch_watch import FetchTimes

ByPartition = dict[tuple[str, ...], float]
"""(topic, partition) to a value. Unknown values are absent."""


class SourceReadings:
    """Values of this process by partition; empty before its consumer has started and after it has stopped."""

    def __init__(
        self,
        consumer: Callable[[], Any],
        tracker: Tracker[TopicPartition],
        times: FetchTimes[TopicPartition],
        paused: Collection[TopicPartition],
        retries: Collection[str] = (),
        *,
        idle: Callable[[TopicPartition], int | None] = lambda partition: 0,
    ) -> None:
        """`retries`: topics whose records wait on purpose; excluded from lag and age. `idle`: the number of delivered
        records of a partition that wait on purpose; None: all of its records do.
        """
        self._retries, self._idle = retries, idle
        self._consumer, self._tracker, self._times, self._paused = consumer, tracker, times, paused

    def _assignment(self) -> set[TopicPartition]:
        consumer = self._consumer()
        return set(consumer.assignment()) if consumer is not None else set()

    def _retry_partitions(self) -> set[TopicPartition]:
        return {partition for partition in self._assignment() if partition.topic in self._retries}

    def retries(self) -> ByPartition:
        """Return the number of unfinished records by partition of the topic of retries."""
        return self._compute_lag(self._retry_partitions())

    def known_partitions(self, topic: str) -> int | None:
        """Return the number of partitions of a topic in the consumer's metadata; None if it has none."""
        consumer = self._consumer()
        found = consumer.partitions_for_topic(topic) if consumer is not None else None
        return len(found) if found else None

    def assigned(self) -> int:
        return len(self._assignment())

    def paused(self) -> int:
        return len(self._paused)

    def lag(self) -> ByPartition:
        """Return the number of unfinished records by partition, up to the last stable offset."""
        return self._compute_lag(self._assignment() - self._retry_partitions())

    def _compute_lag(self, partitions: set[TopicPartition]) -> ByPartition:
        lag: ByPartition = {}
        for partition in partitions:
            progress, end = self._tracker.known(partition), self._consumer().last_stable_offset(partition)
            if progress is not None and progress.committable is not None and end is not None and end >= 0:
                lag[_labels(partition)] = max(end - progress.committable, 0)
        return lag

    def waiting(self) -> ByPartition:
        """Return the number of unfinished records by partition that do not wait on purpose."""
        waiting: ByPartition = {}
        for partition in self._assignment() - self._retry_partitions():
            progress, end = self._tracker.known(partition), self._consumer().last_stable_offset(partition)
            position = position_now(self._consumer(), partition)
            if progress is not None and position is not None and end is not None and end >= 0:
                idle = self._idle(partition)
                unread = max(end - position, 0)
                waiting[_labels(partition)] = 0 if idle is None else max(unread + progress.unfinished - idle, 0)
        return waiting

    def oldest_unfinished(self) -> ByPartition:
        """Return the seconds since the oldest unfinished record was fetched; 0 when all are finished."""
        now = time.monotonic()
        partitions = self._assignment() - self._retry_partitions()
        known = {partition: self._tracker.known(partition) for partition in partitions}
        return {_labels(p): progress.oldest_s(now) for p, progress in known.items() if progress is not None}

    def since_fetch(self) -> ByPartition:
        """Return the seconds since the last successful fetch."""
        assigned = self._assignment()
        return {_labels(p): seconds for p, seconds in self._times.seconds(time.monotonic()).items() if p in assigned}


def _labels(partition: TopicPartition) -> tuple[str, str]:
    return partition.topic, str(partition.partition)


def assignment_now(consumer: Any) -> Any:
    """Return the client's object of its current assignment, a new one for each; None before the first."""
    subscription = consumer._subscription.subscription
    return subscription.assignment if subscription is not None else None


def position_now(consumer: Any, partition: TopicPartition) -> int | None:
    """Return the consumer's position in a partition; None without one (the client's own call would wait for it)."""
    assignment = assignment_now(consumer)
    if assignment is None or partition not in assignment.tps:
        return None
    state = assignment.state_value(partition)
    return int(state.position) if state.has_valid_position else None


def watch_source(
    metrics: Metrics,
    readings: SourceReadings,
    tracker: Tracker[TopicPartition],
    topics: Sequence[str],
    retrying: Retrying,
) -> None:
    """Let metrics read the values of the consumer at each scrape."""
    metrics.expect_topics(topics)
    metrics.watch(
        in_flight=lambda: tracker.unfinished,
        assigned=readings.assigned,
        paused=readings.paused,
        lag=readings.lag,
        waiting=readings.waiting,
        oldest_unfinished=readings.oldest_unfinished,
        since_fetch=readings.since_fetch,
        retries_behind=readings.retries,
        retries_in_memory=retrying.in_memory,
        retries_overdue=retrying.overdue_s,
    )
