"""Runs the console on its address until it is stopped."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from ..runtime.errors import Closed
from ..runtime.observe.http_server import HttpServer
from .assembly import Console

MAX_CONNECTIONS: Final = 100
"""Connections at a time, those without a request, too; requests on others are answered 503."""


async def serve(
    console: Console,
    address: tuple[str, int],
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Answer requests until `stop`, then do what is left (`console.closing`). `ready` is called once, with the URL.

    Raises SetupError when the address is taken.

    The address of a request is that of its connection: the console itself decides which proxy it believes.
    """
    server = HttpServer(
        console.application,
        address,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=15,
    )
    tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(work()) for work in console.work]
    stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    try:
        await server.start()
        ready(server.url)
        await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                raise task.exception() or Closed("a part of the console ended")
    finally:
        await server.stop()
        await asyncio.gather(*(close() for close in console.closing))
        for task in [*tasks, stopping]:
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
