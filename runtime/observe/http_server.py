"""A small HTTP server for an ASGI application beside the work of the process."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn

from ..errors import SetupError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class HttpServer:
    """Serves an ASGI application on its own HOST:PORT, without changing the process's signal handlers."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], address: tuple[str, int], **options: Any
    ) -> None:
        """Bind the address at once; port 0 binds a free one. Raises SetupError when it is not available.

        `options`: further ones of uvicorn.
        """
        self._socket = _bind(*address)
        chosen: dict[str, Any] = {"timeout_graceful_shutdown": 1, **options}
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none", **chosen)
        self._server = _QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT as bound."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")
        await self._server.up.wait()

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()


class _QuietServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SetupError(
            f"http {host}:{port}: {reason}; choose another with --http HOST:PORT (port 0: a free one)"
        ) from None
    return sock
