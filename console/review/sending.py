"""Sends verdicts until the broker has them. What it does not take is listed as unsent and tried again."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from ...runtime.errors import DeliveryError
from ...runtime.observe.logs import get_logger
from ...runtime.wire.feedback import to_record
from ...runtime.wire.message import Message
from ...schemas.feedback import Feedback
from .queue import ReviewQueue

log = get_logger(__name__)

_PAUSE_S: Final = 5.0
_TURN_S: Final = 0.5
"""How long a verdict waits at most to be noticed where `wake` was not called."""


class Publishes(Protocol):
    """`runtime.kafka.sending.publisher.Publisher`, or a fake of it."""

    async def publish(self, messages: list[Message], /) -> list[DeliveryError | None]: ...


class VerdictSender:
    """Publishes what the queue holds as unsent, each as a record of its own, until each is acknowledged."""

    def __init__(
        self, queue: ReviewQueue, publisher: Publishes, topic: str, on_sent: Callable[[], None] = lambda: None
    ) -> None:
        self._queue, self._publisher, self._topic, self._on_sent = queue, publisher, topic, on_sent
        self._woken = asyncio.Event()
        self._sending: dict[str, asyncio.Task[None]] = {}
        self.refused: str | None = None
        """Why the broker did not take the last one that it refused; None after it took one."""

    def wake(self) -> None:
        """Send now what is new."""
        self._woken.set()

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            while True:
                for feedback in self._queue.unsent.values():
                    if feedback.id not in self._sending:
                        self._sending[feedback.id] = asyncio.create_task(self._send(feedback))
                self._woken.clear()
                try:
                    async with asyncio.timeout(_TURN_S):
                        await self._woken.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._sending.values():
                task.cancel()

    async def _send(self, feedback: Feedback) -> None:
        message = Message(**to_record(feedback, self._topic))
        try:
            (error,) = await self._publisher.publish([message])
            if error is None:
                self.refused = None
                self._queue.acknowledge(feedback.id)
                self._on_sent()
                return
            self.refused = str(error)
            log.warning("a verdict is not sent yet, trying again", why=self.refused)
            await asyncio.sleep(_PAUSE_S)
        finally:
            self._sending.pop(feedback.id, None)
