"""The console in the browser beside a demo, in the same process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...console.assembly import assemble
from ...console.server import serve
from ...runtime.settings.settings import Settings


@asynccontextmanager
async def console_beside(settings: Settings, address: str, process_url: str) -> AsyncIterator[str]:
    """Serve the console at HOST:PORT during the block; yields its URL. `process_url`: that of the serving process."""
    section = type(settings.console)(http=address, metrics=(f"{process_url}/metrics",))
    own = settings.model_copy(update={"console": section})
    stop: asyncio.Event = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(assemble(own), section.http_address, stop=stop, ready=ready.set_result))
    try:
        await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving  # raises why it did not start
        yield await ready
    finally:
        stop.set()
        await serving
