"""Lets the passes that try and calibrate a version that is being loaded take turns with those that answer."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Final

MOST_S: Final = 1.0
"""A pass that has not ended by then holds nothing back any more."""
PATIENCE_S: Final = 30.0
"""Maximum time that a pass waits for its turn."""


class LoadingPasses:
    """Passes outside of the queues, one at a time. `turn` is entered in threads, all else is called on the event loop.

    Invariants:
    - while one runs, at most `beside` passes and steps of loaded versions run, until it has taken `MOST_S`;
      passes of a version that is only compared are not among them;
    - between two of them, what waits for the device starts first, as much as has room;
    - none waits for longer than `PATIENCE_S`: then it runs without a turn, beside whatever runs;
    - none waits, or holds anything back, while the batcher stops or once it has ended; none waits while the device fails.
    """

    def __init__(self, beside: int, start: Callable[[], None]) -> None:
        """`beside`: none on an accelerator, whose passes would be measured with it. `start` starts what waits for the device."""
        self._beside, self._start = beside, start
        self._waiting: deque[Future[None]] = deque()
        self._running: Future[None] | None = None
        self._others_first = self._closed = False
        self._overdue: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """The number of passes that run and hold others back."""
        return int(self._running is not None)

    @property
    def is_idle(self) -> bool:
        """Whether none runs or waits."""
        return self._running is None and not self._waiting

    def open(self) -> None:
        """Let passes wait for their turns. Call it on the event loop that calls all other methods."""
        self._loop = asyncio.get_running_loop()

    def holds_back(self, in_flight: int) -> bool:
        """Return whether nothing more may start beside so many passes and steps of loaded versions."""
        is_next = bool(self._waiting) and not self._others_first
        return (self._running is not None or is_next) and in_flight >= self._beside

    def begin_next(self, in_flight: int) -> None:
        """Let the next one run if no more than it may have beside it runs. Call it after what waits has started."""
        self._others_first = False
        if self._running is None and self._waiting and in_flight <= self._beside:
            self._running = self._waiting.popleft()
            self._overdue = self._loop.call_later(MOST_S, self._end, self._running)
            self._running.set_result(None)

    def let_all_run(self) -> None:
        """Let all run that wait: the device fails, so that nothing is held up."""
        while self._waiting:
            self._waiting.popleft().set_result(None)

    def close(self) -> None:
        """Let all run, now and later, and hold nothing back: the batcher stops, and what is left of its time is for answers."""
        self._closed, self._running = True, None
        self.let_all_run()
        if self._overdue is not None:
            self._overdue.cancel()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and have it until the block ends. In a thread."""
        turn = Future[None]()
        with suppress(RuntimeError, TimeoutError):  # the loop is closed, or the device is taken: then without a turn
            self._loop.call_soon_threadsafe(self._request, turn)
            turn.result(PATIENCE_S)
        try:
            yield
        finally:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end, turn)

    def _request(self, turn: "Future[None]") -> None:
        if self._closed:
            turn.set_result(None)
            return
        self._waiting.append(turn)
        self._start()

    def _end(self, turn: "Future[None]") -> None:
        """End a turn; a pass that had none, or has it no more, changes nothing."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif turn is not self._running:
            return
        else:
            self._running, self._others_first = None, True
            if self._overdue is not None:
                self._overdue.cancel()
        if not self._closed:
            self._start()
