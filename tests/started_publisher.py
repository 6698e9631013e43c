"""A publisher on a real Kafka that counts the producers it makes and the pauses of intake that it asks for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from murmura.runtime.kafka.sending.producer import IdempotentProducer, producer_factory
from murmura.runtime.kafka.sending.publisher import Publisher
from murmura.runtime.settings.settings import KafkaSettings, ProducerSettings


class CountedPublisher(Publisher):
    """`producers`: all that it has made; `connected`: how many of them reached a broker. `pauses`: one entry a pause of
    intake."""

    def __init__(self, kafka: KafkaSettings, **more) -> None:
        make = producer_factory(kafka, ProducerSettings())
        self.producers: list[IdempotentProducer] = []
        self.pauses: list[bool] = []
        self.connected = 0

        def make_and_count() -> IdempotentProducer:
            producer = make()
            self.producers.append(producer)
            start = producer.start

            async def start_and_count() -> None:
                await start()
                self.connected += 1

            producer.start = start_and_count
            return producer

        super().__init__(make_and_count, **more)
        pause = self.taking.clear

        def pause_and_count() -> None:
            self.pauses.append(True)
            pause()

        self.taking.clear = pause_and_count


@asynccontextmanager
async def start_publisher(bootstrap: str, *, kafka: dict | None = None, **more) -> AsyncIterator[CountedPublisher]:
    """Yield a connected publisher, stopped afterwards. `kafka`: more of the Kafka settings."""
    settings = KafkaSettings(bootstrap_servers=bootstrap, metadata_max_age_ms=1000, **(kafka or {}))
    publisher = CountedPublisher(settings, **more)
    await publisher.start()
    try:
        yield publisher
    finally:
        await publisher.stop()
