"""Runs what may hang in a thread of its own: it holds up neither other threads' work nor the end of the process."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_in_daemon(work: Callable[[], T]) -> asyncio.Future[T]:
    """Return the future of what `work` returns or raises. Shield it: its thread goes on."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except Exception as error:  # noqa: BLE001  (passed on to who waits)
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True, name="murmura-store").start()
    return asyncio.wrap_future(outcome)
