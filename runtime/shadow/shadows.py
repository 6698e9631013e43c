"""The parts of a process that compare versions: what shadows share, and the sender of what they find."""

import asyncio
from collections.abc import Callable

from ..kafka.publisher import Publisher
from ..observe.metrics import Metrics
from ..output.serving_events import this_process
from ..settings.settings import Settings
from .messages import ShadowMessages
from .sending import ShadowSender
from .shared import Shared


class Shadows:
    """One per process. Without a loaded shadow it does nothing, and has no producer."""

    def __init__(self, settings: Settings, metrics: Metrics, make: Callable[[], Publisher]) -> None:
        """`make` returns a publisher that is not started."""
        self._sender = ShadowSender(make, metrics, settings.shadow.max_unsent_bytes)
        messages = ShadowMessages(f"{settings.prefix}.shadow", settings.app, this_process())
        self.shared = Shared(settings.shadow, messages, self._sender.put, metrics)

    async def run(self) -> None:
        """Publish counts and differences until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sender.run())
            group.create_task(self.shared.run())

    async def stop(self) -> None:
        """Stop all shadows, and try for two seconds to send what is left."""
        await self.shared.stop()
        await self._sender.stop()
