"""Bounds the time of a shutdown: steps that wait for an unresponsive broker are cancelled."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ...observe.logs import get_logger

log = get_logger(__name__)

_AT_LEAST_S: Final = 0.2
_BEYOND_DRAIN_S: Final = 1.0


class StopClock:
    """The deadline of a shutdown; it starts with the first call of `begin`."""

    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._deadline: float | None = None

    def begin(self) -> float:
        """Start the shutdown; returns its deadline (monotonic, s). Later calls return the same deadline."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._drain_s + _BEYOND_DRAIN_S
        return self._deadline

    async def finish(self, what: str, end: Callable[[], Awaitable[None]]) -> None:
        """Run one step of the shutdown; at the deadline, but not before 0.2 s, cancel it and return without it."""
        task = asyncio.ensure_future(end())
        left = max(self.begin() - time.monotonic(), _AT_LEAST_S)
        done, _ = await asyncio.wait([task], timeout=left)
        if not done:
            task.cancel()
            log.warning("given up at the stop", what=what)
        elif not task.cancelled() and (error := task.exception()) is not None:
            raise error
