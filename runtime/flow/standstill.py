"""Notices that the process stood still for longer than its session: stopped, suspended, or with a blocked event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

_BEATS: Final = 10


class Pulse:
    """Knows whether the partitions may belong to others by now, because nothing ran here for longer than `most_s`.

    A process that was frozen wakes with everything as it was, goes on with its records, and learns that it was taken for
    dead only from the answer to its next heartbeat. Until that has come (its partitions are taken away, or `most_s` have
    passed in which heartbeats went well), it is in doubt.
    """

    def __init__(self, most_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_s, self._clock = most_s, clock
        self._last = clock()
        self._woke: float | None = None

    async def beat_for_ever(self) -> None:
        while True:
            self._beat()
            await asyncio.sleep(self._most_s / _BEATS)

    @property
    def in_doubt(self) -> bool:
        # Whatever runs first after a freeze asks here, before the beat itself may have run.
        now = self._beat()
        return self._woke is not None and now - self._woke < self._most_s

    def trust(self) -> None:
        """The partitions have been assigned anew: what was before does not matter."""
        self._beat()
        self._woke = None

    def _beat(self) -> float:
        now = self._clock()
        if now - self._last > self._most_s:
            self._woke = now
        self._last = now
        return now
