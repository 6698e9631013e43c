"""Sends tried texts with one producer, which is started for the first of them and replaced after a failure."""

import asyncio
from http import HTTPStatus

from aiokafka.errors import KafkaError

from ...runtime.kafka.sending.producer import IdempotentProducer, producer_factory
from ...runtime.kafka.topics import require_topics
from ...runtime.observe.logs import get_logger
from ...runtime.settings.settings import Settings
from ..web.people import Refused

log = get_logger(__name__)


class TextSender:
    """What was refused for want of an acknowledgement is not sent later, except where it was on its way already."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._make = producer_factory(settings.kafka, settings.producer)
        self._producer: IdempotentProducer | None = None
        self._starting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._seen: set[str] = set()
        """Topics that were there."""

    async def send(self, topic: str, value: bytes, key: bytes) -> None:
        """Return when the broker has acknowledged a record. Raises Refused, and SetupError for a topic that is missing."""
        if topic not in self._seen:
            await require_topics(self._settings.kafka, [topic])
            self._seen.add(topic)
        producer = None
        try:
            async with asyncio.timeout(self._settings.producer.send_timeout_s):
                producer = await self._open()
                await producer.send_and_wait(topic, value, key)
        except (KafkaError, TimeoutError, OSError) as error:
            self._seen.discard(topic)
            self._drop(producer, topic)
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, f"The broker did not acknowledge it: {type(error).__name__}."
            ) from None

    async def _open(self) -> IdempotentProducer:
        async with self._starting:
            if self._producer is None:
                producer = self._make()
                try:
                    await producer.start()
                except BaseException:
                    self._close_later(producer)
                    raise
                self._producer = producer
            return self._producer

    def _drop(self, producer: IdempotentProducer | None, topic: str) -> None:
        if producer is None:
            return
        if producer is self._producer:
            self._producer = None
        producer.discard_batches([topic])
        self._close_later(producer)

    def _close_later(self, producer: IdempotentProducer) -> None:
        closing = asyncio.create_task(producer.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close what is open; takes at most about ten seconds."""
        if self._producer is not None:
            self._close_later(self._producer)
            self._producer = None
        await asyncio.gather(*self._closing, return_exceptions=True)
