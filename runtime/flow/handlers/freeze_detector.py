"""Detects that the process did not run for longer than its session timeout: stopped, suspended, or event loop blocked."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

_TICKS: Final = 10


class FreezeDetector:
    """Reports whether the partitions may belong to another member, because nothing ran here for longer than `most_s`.

    A frozen process resumes with its records and learns only from the answer to its next heartbeat that the group removed
    it. Ownership is in doubt until the partitions are revoked, or until `most_s` have passed with successful heartbeats.
    """

    def __init__(self, most_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_s, self._clock = most_s, clock
        self._last = clock()
        self._resumed_at: float | None = None

    async def run(self) -> None:
        """Check the time periodically, until cancelled."""
        while True:
            self._tick()
            await asyncio.sleep(self._most_s / _TICKS)

    @property
    def in_doubt(self) -> bool:
        # Checks the time itself: after a freeze this may be called before `run` is.
        now = self._tick()
        return self._resumed_at is not None and now - self._resumed_at < self._most_s

    def reset(self) -> None:
        """End the doubt: the partitions have been assigned again."""
        self._tick()
        self._resumed_at = None

    def _tick(self) -> float:
        now = self._clock()
        if now - self._last > self._most_s:
            self._resumed_at = now
        self._last = now
        return now
