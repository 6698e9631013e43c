"""Classifies failed fetches by the affected partitions, bounds their duration, and reports them to health and metrics."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from aiokafka.errors import (
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import TopicPartition

from ...errors import MurmuraError
from ...kafka.sending.scopes import Place, Scope, scope_of
from ...observe.health import HealthState
from ...observe.logs import get_logger
from ...observe.metrics import Metrics
from .fetch_watch import Blocked, FetchTimes

log = get_logger(__name__)

_PAUSE_S: Final = 1.0
_MOVED_S: Final = 0.05


class FetchFaults:
    """Owns the blocked partitions and the time since the last successful fetch.

    Invariants:
    - an error about some partitions affects only those;
    - each error is followed by a pause, so that none causes a busy loop;
    - a permanent error ends the process after `give_up_s` without a successful fetch;
    - what the client fetches in the background while each poll fails is no successful fetch.
    """

    def __init__(self, metrics: Metrics, health: HealthState, give_up_s: float) -> None:
        self._metrics, self._health, self._give_up_s = metrics, health, give_up_s
        self.blocked: Blocked[TopicPartition] = Blocked()
        self.times: FetchTimes[TopicPartition] = FetchTimes()
        self._refused_since: float | None = None

    def find_without_position(self, error: Exception) -> list[TopicPartition]:
        """Return the partition without a committed offset if the error is about that, else nothing."""
        return [error.args[0]] if isinstance(error, NoOffsetForPartitionError) and error.args else []

    def find_out_of_range(self, error: Exception) -> dict[TopicPartition, int]:
        """Return the out-of-range positions by partition if the error is about them, else nothing."""
        return dict(error.args[0]) if isinstance(error, OffsetOutOfRangeError) and error.args else {}

    def concerns(self, error: Exception, partition: TopicPartition) -> bool:
        """Return whether an error is about this partition's topic only."""
        if not isinstance(error, TopicAuthorizationFailedError) or not error.args:
            return False
        topics = error.args[0]
        return partition.topic in ({topics} if isinstance(topics, str) else set(topics))

    def block(self, partitions: Iterable[TopicPartition], error: Exception) -> None:
        """Block partitions that cannot be read."""
        now, why = time.monotonic(), type(error).__name__
        self._metrics.failed_fetch(why)
        for partition in partitions:
            if self.blocked.add(partition, why, now):
                log.error("a partition cannot be read", why=why, topic=partition.topic, partition=partition.partition)
        self._show()

    async def wait(self, error: Exception) -> None:
        """Pause after an error that affects all partitions. Raises MurmuraError when it lasted longer than `give_up_s`."""
        if isinstance(error, IllegalStateError):  # the assignment changed during the call
            await asyncio.sleep(_MOVED_S)
            return
        now, why = time.monotonic(), type(error).__name__
        self._metrics.failed_fetch(why)
        log.error("fetching failed", why=why)
        self.times.note_failure(now)
        if scope_of(error, Place.FETCH) is Scope.PROCESS:
            self._refused_since = now if self._refused_since is None else self._refused_since
            if now - self._refused_since >= self._give_up_s:
                raise MurmuraError(f"nothing could be fetched for {now - self._refused_since:.0f} s: {why}") from error
        await asyncio.sleep(_PAUSE_S)

    def update(self, stamps: Mapping[TopicPartition, object], paused: Collection[TopicPartition]) -> None:
        """Record the client's timestamps of the last fetches, and update health."""
        now = time.monotonic()
        fetched = self.times.update(stamps, paused, now)
        self.blocked.keep(stamps.keys())
        for partition in fetched:
            if partition not in self.blocked and self.blocked.clear(partition):
                log.info("a partition can be read again", topic=partition.topic, partition=partition.partition)
        if fetched and not self.times.is_failing:
            self._refused_since = None
        self._health.unfetched_s = self.times.shortest_s(now)
        self._show()

    def _show(self) -> None:
        self._health.blocked = {f"{p.topic}/{p.partition}": why for p, why in sorted(self.blocked.reasons.items())}

    def check_alive(self, consumer: Any) -> None:
        """Raise MurmuraError when a background task of the client has ended with an error: it is never restarted.

        Without heartbeats the group gives the partitions to others, and the client goes on as if it had them.
        """
        coordinator, fetcher = consumer._coordinator, consumer._fetcher
        for name, task in (
            ("coordination has", getattr(coordinator, "_coordination_task", None)),
            ("heartbeats have", getattr(coordinator, "_heartbeat_task", None)),
            ("fetching has", getattr(fetcher, "_fetch_task", None)),
        ):
            if task is not None and task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise MurmuraError(f"the client's {name} ended ({error}); start the process again") from error
