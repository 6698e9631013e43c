"""The parts of a process that compare versions: what shadows share, and the senders of what they find."""

import asyncio
from collections.abc import Callable

from ..kafka.sending.publisher import Publisher
from ..observe.metrics import Metrics
from ..output.serving_events import this_process
from ..settings.settings import Settings
from .disagreements import DisagreementReviews
from .messages import ShadowMessages
from .sending import ShadowSender
from .shared import Shared


class Shadows:
    """One per process. Without a loaded shadow it does nothing, and has no producer.

    Reviews have a sender of their own, so that what becomes of their topic costs no difference.
    """

    def __init__(self, settings: Settings, metrics: Metrics, make: Callable[[], Publisher]) -> None:
        """`make` returns a publisher that is not started."""
        most_bytes = settings.shadow.max_unsent_bytes
        self._sender, self._reviews = (ShadowSender(make, metrics, most_bytes) for _ in range(2))
        messages = ShadowMessages(f"{settings.prefix}.shadow", settings.app, this_process())
        reviews = DisagreementReviews(
            f"{settings.prefix}.reviews", settings.app, settings.reviews.disagreements_per_minute, metrics
        )
        self.shared = Shared(
            settings.shadow, messages, self._sender.put, metrics, reviews=reviews, put_review=self._reviews.put
        )

    async def run(self) -> None:
        """Publish counts and differences until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sender.run())
            group.create_task(self._reviews.run())
            group.create_task(self.shared.run())

    async def stop(self) -> None:
        """Stop all shadows, and try for two seconds to send what is left."""
        await self.shared.stop()
        await asyncio.gather(self._sender.stop(), self._reviews.stop())
