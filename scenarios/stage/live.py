"""Redraws a demo's screen a few times a second."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.live import Live

from ...runtime.observe.metrics import Metrics
from .desk import Desk
from .keys import Line, typing_into
from .screen import Now

REDRAW_S: Final = 0.12
_BATCH_WINDOW_S: Final = 5.0

Typed = Callable[[str], Coroutine[Any, Any, None]]
Draw = Callable[[Now, int, int], RenderableType]
"""Returns the current screen for a width and a height in characters."""


class Batches:
    """Mean rows of the latest batches, from the histogram of the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._rows = metrics.batch_rows
        self._marks: deque[tuple[float, int, float]] = deque()

    def mean(self, now: float) -> float:
        self._marks.append((now, *self._rows.totals()))
        while now - self._marks[0][0] > _BATCH_WINDOW_S:
            self._marks.popleft()
        batches = self._marks[-1][1] - self._marks[0][1]
        return (self._marks[-1][2] - self._marks[0][2]) / batches if batches else 0.0


def can_show(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


@contextlib.asynccontextmanager
async def show_live(console: Console, desk: Desk, metrics: Metrics, draw: Draw, typed: Typed) -> AsyncIterator[None]:
    """Show what `draw` returns during the block, and pass each typed line to `typed`."""
    line, changed = Line(), asyncio.Event()
    spoken: set[asyncio.Task[None]] = set()

    def speak(text: str) -> None:
        task = asyncio.create_task(typed(text))
        spoken.add(task)
        task.add_done_callback(spoken.discard)

    async def redraw(live: Live, batches: Batches, can_type: bool) -> None:
        while True:
            moment = time.monotonic()
            now = Now(desk.per_second(moment), batches.mean(moment), line.typed if can_type else None, moment)
            live.update(draw(now, *live.console.size), refresh=True)
            changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), REDRAW_S)

    with (
        Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live,
        typing_into(line, speak, changed.set) as can_type,
    ):
        drawing = asyncio.create_task(redraw(live, Batches(metrics), can_type))
        try:
            yield
        finally:
            drawing.cancel()
            await asyncio.gather(drawing, *spoken, return_exceptions=True)
