"""What a failed fetch is about, how long it may last, and what health and metrics show of it."""

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

from ..errors import MurmuraError
from ..kafka.scopes import Place, Scope, scope_of
from ..observe.health import HealthState
from ..observe.logs import get_logger
from ..observe.metrics import Metrics
from .fetch_watch import Blocked, FetchTimes

log = get_logger(__name__)

_PAUSE_S: Final = 1.0
_MOVED_S: Final = 0.05


class FetchFaults:
    """Owns which partitions are blocked and since when nothing could be fetched.

    Invariants:
    - what is about some partitions costs only these;
    - after each error there is a pause, so no error makes a busy loop;
    - an error that no waiting mends ends the process after `give_up_s` without a successful fetch.
    """

    def __init__(self, metrics: Metrics, health: HealthState, give_up_s: float) -> None:
        self._metrics, self._health, self._give_up_s = metrics, health, give_up_s
        self.blocked: Blocked[TopicPartition] = Blocked()
        self.times: FetchTimes[TopicPartition] = FetchTimes()
        self._refused_since: float | None = None

    def without_position(self, error: Exception) -> list[TopicPartition]:
        """Return the partition for which the group has no offset, where the error says that."""
        return [error.args[0]] if isinstance(error, NoOffsetForPartitionError) and error.args else []

    def out_of_range(self, error: Exception) -> dict[TopicPartition, int]:
        """Return the positions that their logs do not have, where the error says that."""
        return dict(error.args[0]) if isinstance(error, OffsetOutOfRangeError) and error.args else {}

    def concerns(self, error: Exception, partition: TopicPartition) -> bool:
        """Say whether an error is about this partition's topic and not about everything."""
        if not isinstance(error, TopicAuthorizationFailedError) or not error.args:
            return False
        topics = error.args[0]
        return partition.topic in ({topics} if isinstance(topics, str) else set(topics))

    def block(self, partitions: Iterable[TopicPartition], error: Exception) -> None:
        now, why = time.monotonic(), type(error).__name__
        self._metrics.failed_fetch(why)
        for partition in partitions:
            if self.blocked.add(partition, why, now):
                log.error("a partition cannot be read", why=why, topic=partition.topic, partition=partition.partition)
        self._show()

    async def wait(self, error: Exception) -> None:
        """Pause after an error that is about everything. Raises MurmuraError when it has lasted for too long."""
        if isinstance(error, IllegalStateError):  # the assignment changed while something was asked of it
            await asyncio.sleep(_MOVED_S)
            return
        now, why = time.monotonic(), type(error).__name__
        self._metrics.failed_fetch(why)
        log.error("fetching failed", why=why)
        if scope_of(error, Place.FETCH) is Scope.PROCESS:
            self._refused_since = now if self._refused_since is None else self._refused_since
            if now - self._refused_since >= self._give_up_s:
                raise MurmuraError(f"nothing could be fetched for {now - self._refused_since:.0f} s: {why}") from error
        await asyncio.sleep(_PAUSE_S)

    def look(self, stamps: Mapping[TopicPartition, object], paused: Collection[TopicPartition]) -> None:
        """Take in when each partition was last fetched."""
        now = time.monotonic()
        fetched = self.times.look(stamps, paused, now)
        self.blocked.keep(stamps.keys())
        for partition in fetched:
            if partition not in self.blocked and self.blocked.clear(partition):
                log.info("a partition can be read again", topic=partition.topic, partition=partition.partition)
        if fetched:
            self._refused_since = None
        self._health.unfetched_s = self.times.shortest_s(now)
        self._show()

    def _show(self) -> None:
        self._health.blocked = {f"{p.topic}/{p.partition}": why for p, why in sorted(self.blocked.reasons.items())}

    def check_alive(self, consumer: Any) -> None:
        """Raise MurmuraError when a background task of the client has died: it is never begun again."""
        coordinator, fetcher = consumer._coordinator, consumer._fetcher
        for name, task in (
            ("coordination", getattr(coordinator, "_coordination_task", None)),
            ("fetching", getattr(fetcher, "_fetch_task", None)),
        ):
            if task is not None and task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise MurmuraError(f"the client's {name} has ended ({error}); start the process again") from error
