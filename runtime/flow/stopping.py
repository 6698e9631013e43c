"""The end of a process within its time: what still waits for a broker that does not answer is given up."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ..observe.logs import get_logger

log = get_logger(__name__)

_AT_LEAST_S: Final = 0.2
_BEYOND_DRAIN_S: Final = 1.0


class StopClock:
    """When a stop has to be over. Before it begins there is no hurry."""

    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._deadline: float | None = None

    def begin(self) -> float:
        """Start the time; returns when it is up (monotonic, s). The first call counts."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._drain_s + _BEYOND_DRAIN_S
        return self._deadline

    async def finish(self, what: str, end: Callable[[], Awaitable[None]]) -> None:
        """Run one step of the stop for as long as there is time, and a moment at least; then leave it to itself."""
        task = asyncio.ensure_future(end())
        left = max(self.begin() - time.monotonic(), _AT_LEAST_S)
        done, _ = await asyncio.wait([task], timeout=left)
        if not done:
            task.cancel()
            log.warning("given up at the stop", what=what)
        elif not task.cancelled() and (error := task.exception()) is not None:
            raise error
