"""Runs a command's coroutine until it ends or a signal stops it."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ..errors import Closed

T = TypeVar("T")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_until_stopped(
    main: Callable[[asyncio.Event], Awaitable[T]], *, on_stop: Callable[[], None] = lambda: None
) -> T:
    """Run `main(stop)` and return what it returns.

    The first Ctrl-C or SIGTERM sets `stop` and calls `on_stop`; `main` must then end by itself. A second signal ends
    the process, as without a handler. Signals reach the main thread alone: in another one `stop` is never set.
    """
    handled = STOP_SIGNALS if threading.current_thread() is threading.main_thread() else ()

    async def run_with_signals() -> T:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def request_stop() -> None:
            stop.set()
            for number in handled:
                loop.remove_signal_handler(number)
            on_stop()

        for number in handled:
            loop.add_signal_handler(number, request_stop)
        try:
            return await main(stop)
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    return asyncio.run(run_with_signals())


def run_cancellable(main: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine that may be cancelled: the first Ctrl-C or SIGTERM cancels it and raises Closed."""

    async def cancel_on_stop(stop: asyncio.Event) -> T:
        work = asyncio.ensure_future(main(stop))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait((work,))
            raise Closed("stopped before it was done")
        return work.result()

    return run_until_stopped(cancel_on_stop)
