"""Running a command's coroutine until it ends or somebody asks it to stop."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ..errors import Closed

T = TypeVar("T")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(main: Callable[[asyncio.Event], Awaitable[T]], *, on_stop: Callable[[], None] = lambda: None) -> T:
    """Run `main(stop)` and return what it returns.

    The first Ctrl-C or SIGTERM sets `stop` and calls `on_stop`; `main` is expected to end by itself. A second one ends
    the process as if there were no handler.
    """

    async def until_signalled() -> T:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ask() -> None:
            stop.set()
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)
            on_stop()

        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, ask)
        try:
            return await main(stop)
        finally:
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)

    return asyncio.run(until_signalled())


def run_to_end(main: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine that may be cancelled: the first Ctrl-C or SIGTERM ends it at once, with one line."""

    async def until_signalled(stop: asyncio.Event) -> T:
        work = asyncio.ensure_future(main(stop))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait((work,))
            raise Closed("stopped before it was done")
        return work.result()

    return run(until_signalled)
