"""Reading topics from outside: without a group, and so without a trace on the broker."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from ..settings.settings import KafkaSettings
from . import topics as topics_admin


@asynccontextmanager
async def reading(kafka: KafkaSettings, topics: Sequence[str], *, from_beginning: bool) -> AsyncIterator[Any]:
    """Give a started consumer over all partitions of `topics`, at their beginning or at their end.

    Raises SetupError when the broker does not answer or has not one of them.
    """
    counts = await topics_admin.require(kafka, topics)
    consumer = AIOKafkaConsumer(
        **kafka.consumer_options(), fetch_max_wait_ms=kafka.fetch_max_wait_ms, enable_auto_commit=False
    )
    try:
        await consumer.start()
        consumer.assign([TopicPartition(topic, number) for topic in topics for number in range(counts[topic])])
        # A position is fetched when it is first needed; asking for it here makes "the end" mean now.
        await (consumer.seek_to_beginning() if from_beginning else consumer.seek_to_end())
        yield consumer
    finally:
        await consumer.stop()
