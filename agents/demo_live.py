"""Keeping the demo's screen up to date: redrawn a few times a second on a terminal, line by line elsewhere."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from ..runtime.telemetry import Metrics
from .demo_desk import Desk
from .demo_keys import Line, typing_into
from .demo_screen import Facts, Now, plain_line, screen

REDRAW_S: Final = 0.12
_BATCH_WINDOW_S: Final = 5.0

Say = Callable[[str], Coroutine[Any, Any, None]]


class Batches:
    """Mean rows of the batches of the last seconds, from the histogram that Prometheus gets too."""

    def __init__(self, metrics: Metrics) -> None:
        self._rows = metrics.batch_rows
        self._marks: deque[tuple[float, int, float]] = deque()

    def mean(self, now: float) -> float:
        self._marks.append((now, *self._rows.totals()))
        while now - self._marks[0][0] > _BATCH_WINDOW_S:
            self._marks.popleft()
        batches = self._marks[-1][1] - self._marks[0][1]
        return (self._marks[-1][2] - self._marks[0][2]) / batches if batches else 0.0


@contextlib.asynccontextmanager
async def shown(console: Console, facts: Facts, desk: Desk, metrics: Metrics, say: Say) -> AsyncIterator[None]:
    """Show the desk while inside. `say` sends what a person typed."""
    if not console.is_terminal or console.is_dumb_terminal:
        console.print(f"metrics {facts.url}/metrics, health {facts.url}/readyz", soft_wrap=True)
        desk.on_settled = lambda message: print(plain_line(message, facts.tasks), flush=True)
        yield
        return
    line, changed = Line(), asyncio.Event()
    spoken: set[asyncio.Task[None]] = set()

    def speak(text: str) -> None:
        task = asyncio.create_task(say(text))
        spoken.add(task)
        task.add_done_callback(spoken.discard)

    with (
        Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live,
        typing_into(line, speak, changed.set) as can_type,
    ):
        drawing = asyncio.create_task(_draw(live, facts, desk, Batches(metrics), changed, line if can_type else None))
        try:
            yield
        finally:
            drawing.cancel()
            await asyncio.gather(drawing, *spoken, return_exceptions=True)


async def _draw(
    live: Live, facts: Facts, desk: Desk, batches: Batches, changed: asyncio.Event, line: Line | None
) -> None:
    while True:
        moment = time.monotonic()
        now = Now(desk.per_second(moment), batches.mean(moment), line.typed if line else None)
        width, height = live.console.size
        live.update(screen(facts, desk, now, width, height), refresh=True)
        changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), REDRAW_S)
