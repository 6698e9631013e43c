"""Sends the records of shadows as best effort: with a producer of their own, beside results and commits."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ..errors import DeliveryError
from ..kafka.sending.publisher import Publisher
from ..observe.logs import get_logger
from ..observe.metrics import Metrics
from ..wire.message import Message

log = get_logger(__name__)

_MOST_ROWS: Final = 500
"""Of a send."""
_PATIENCE_S: Final = 10.0
_AFTER_ERROR_S: Final = 5.0
_FAREWELL_S: Final = 2.0
_LOG_EVERY_S: Final = 60.0
_OVERHEAD_BYTES: Final = 500


class ShadowSender:
    """Queues messages of at most `most_bytes` and sends them in the background.

    Invariants: `put` never waits; the oldest messages are dropped when too many wait, and what the broker does not take in
    ten seconds is dropped; each is counted.
    """

    def __init__(self, make: Callable[[], Publisher], metrics: Metrics, most_bytes: int) -> None:
        """`make` returns a publisher that is not started; it is called when there is something to send."""
        self._make, self._metrics, self._most_bytes = make, metrics, most_bytes
        self._publisher: Publisher | None = None
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self._logged = -_LOG_EVERY_S

    def put(self, message: Message) -> None:
        """Queue a message."""
        self._waiting.append(message)
        self._bytes += _size_of(message)
        while self._bytes > self._most_bytes and len(self._waiting) > 1:
            self._drop([self._pop()], "too many wait")
        self._more.set()

    async def run(self) -> None:
        """Send what waits, until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                if not await self._send_some(_PATIENCE_S):
                    await asyncio.sleep(_AFTER_ERROR_S)

    async def stop(self) -> None:
        """Try for two seconds to send what waits, then drop it."""
        until = time.monotonic() + _FAREWELL_S
        while self._waiting and (left_s := until - time.monotonic()) > 0:
            if not await self._send_some(left_s):
                break
        self._drop([self._pop() for _ in range(len(self._waiting))], "the process ends")
        await self._let_go()

    async def _send_some(self, patience_s: float) -> bool:
        """Send a part of what waits; returns whether the broker decided on all of it."""
        part = [self._pop() for _ in range(min(len(self._waiting), _MOST_ROWS))]
        try:
            async with asyncio.timeout(patience_s):
                refusals = await self._publish(part)
        except asyncio.CancelledError:
            self._drop(part, "the process ends")
            raise
        except Exception as error:  # noqa: BLE001 - an error of the client must not end the process
            self._drop(part, type(error).__name__)
            await self._let_go()
            return False
        refused = [message for message, refusal in zip(part, refusals, strict=True) if refusal is not None]
        self._drop(refused, next((str(refusal) for refusal in refusals if refusal is not None), ""))
        return not refused

    async def _publish(self, part: list[Message]) -> list[DeliveryError | None]:
        if self._publisher is None:
            publisher = self._make()
            await publisher.start()
            self._publisher = publisher
        return await self._publisher.publish(part)

    def _pop(self) -> Message:
        message = self._waiting.popleft()
        self._bytes -= _size_of(message)
        return message

    def _drop(self, messages: list[Message], why: str) -> None:
        for message in messages:
            self._metrics.dropped(message.topic)
        if messages and time.monotonic() - self._logged >= _LOG_EVERY_S:
            self._logged = time.monotonic()
            log.warning("what a shadow found is dropped", topic=messages[0].topic, records=len(messages), why=why)

    async def _let_go(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            with suppress(Exception):
                await publisher.stop()


def _size_of(message: Message) -> int:
    return _OVERHEAD_BYTES + len(message.value or b"") + len(message.key or b"")
