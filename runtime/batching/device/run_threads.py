"""The threads that passes and steps run in."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

Work = Callable[[], Callable[[], None]]
"""Runs in a thread, and returns what to call on the event loop afterwards."""
_JOIN_S: Final = 0.5


class RunThreads:
    """Daemon threads that run work in the order in which it came: a pass that never ends must not block the end of the process."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        """Start so many threads. Call it on the event loop that results go to."""
        self._loop = asyncio.get_running_loop()
        for number in range(count):
            thread = threading.Thread(target=self._serve, name=f"murmura-run-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def running(self) -> bool:
        return bool(self._threads)

    def put(self, work: Work) -> None:
        """Have a thread run this."""
        self._work.put(work)

    def end(self) -> list[threading.Thread]:
        """End each thread after its current work; returns them."""
        for _ in self._threads:
            self._work.put(None)
        threads = self._threads.copy()
        self._threads.clear()
        return threads

    def _serve(self) -> None:
        # A separate method for each piece: an idle thread must not keep the last batch, and its model, alive.
        while self._serve_one(self._work.get()):
            pass

    def _serve_one(self, work: Work | None) -> bool:
        if work is None:
            return False
        finish = work()
        with suppress(RuntimeError):  # the loop is closed: nobody waits for the answer
            self._loop.call_soon_threadsafe(finish)
        return True


def join_threads(threads: list[threading.Thread]) -> None:
    """Wait a moment for threads to end. Blocks."""
    until = time.monotonic() + _JOIN_S
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.0))
