"""Tracks which partitions are fetched and which are blocked. Pure: the caller passes the time (monotonic, s)."""

from collections.abc import Collection, Mapping
from typing import Final, Generic, TypeVar

Partition = TypeVar("Partition")

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0


class FetchTimes(Generic[Partition]):
    """The time of each partition's last fetch, with or without records.

    The client fetches in the background. While each poll fails, nothing that it fetches arrives, so none of it counts.
    """

    def __init__(self) -> None:
        self._last: dict[Partition, tuple[object, float]] = {}
        self._failing_since: float | None = None

    def note_failure(self, now: float) -> None:
        """Note that a poll failed for a reason that concerns all partitions."""
        if self._failing_since is None:
            self._failing_since = now

    def note_poll(self) -> None:
        """Note that a poll did not fail, whether it brought anything or not."""
        self._failing_since = None

    @property
    def is_failing(self) -> bool:
        """Return whether the latest poll failed."""
        return self._failing_since is not None

    def update(self, stamps: Mapping[Partition, object], idle: Collection[Partition], now: float) -> list[Partition]:
        """Record the client's timestamps of its last fetches; returns the partitions fetched since the last call.

        A partition in `idle` is not fetched on purpose: its time starts when it leaves `idle`.
        """
        fetched = [p for p, stamp in stamps.items() if p in self._last and self._last[p][0] != stamp]
        self._last = {
            partition: (stamp, now)
            if partition in idle or partition not in self._last or self._last[partition][0] != stamp
            else self._last[partition]
            for partition, stamp in stamps.items()
        }
        return fetched

    def seconds(self, now: float) -> dict[Partition, float]:
        """Return the seconds since the last fetch of each partition, or since polls have failed."""
        failing = self._failing_s(now)
        return {partition: max(now - last, failing) for partition, (_, last) in self._last.items()}

    def shortest_s(self, now: float) -> float:
        """Return the seconds since anything was fetched; without a partition those since polls have failed, or 0."""
        return min(self.seconds(now).values(), default=self._failing_s(now))

    def _failing_s(self, now: float) -> float:
        return 0.0 if self._failing_since is None else now - self._failing_since


class Blocked(Generic[Partition]):
    """Partitions that cannot be read now, with their reasons. Retried after pauses that double, up to 30 s."""

    def __init__(self) -> None:
        self.reasons: dict[Partition, str] = {}
        self._pauses: dict[Partition, float] = {}
        self._until: dict[Partition, float] = {}

    def add(self, partition: Partition, reason: str, now: float) -> bool:
        """Block a partition, twice as long as the last time; True when it was not blocked before."""
        pause = self._pauses.get(partition)
        self._pauses[partition] = FIRST_PAUSE_S if pause is None else min(2 * pause, LONGEST_PAUSE_S)
        self._until[partition] = now + self._pauses[partition]
        self.reasons[partition] = reason
        return pause is None

    def __contains__(self, partition: Partition) -> bool:
        return partition in self._until

    def due(self, now: float) -> list[Partition]:
        """Return the partitions to retry now, and unblock them."""
        found = [partition for partition, until in self._until.items() if until <= now]
        for partition in found:
            del self._until[partition]
        return found

    def clear(self, partition: Partition) -> bool:
        """Remove a partition that can be read again; True when it had been blocked."""
        self._until.pop(partition, None)
        self._pauses.pop(partition, None)
        return self.reasons.pop(partition, None) is not None

    def keep(self, assigned: Collection[Partition]) -> None:
        """Remove partitions that are no longer assigned."""
        for partition in [p for p in self.reasons if p not in assigned]:
            self.clear(partition)
