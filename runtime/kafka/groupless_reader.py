"""Reads topics without a consumer group, so that nothing is stored on the broker."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from ..settings.settings import KafkaSettings
from .topics import require_topics


@asynccontextmanager
async def open_reader(kafka: KafkaSettings, topics: Sequence[str], *, from_beginning: bool) -> AsyncIterator[Any]:
    """Yield a started consumer of all partitions of `topics`, positioned at their beginning or end.

    Raises SetupError when the broker does not answer or a topic is missing.
    """
    counts = await require_topics(kafka, topics)
    consumer = AIOKafkaConsumer(
        **kafka.consumer_options(), fetch_max_wait_ms=kafka.fetch_max_wait_ms, enable_auto_commit=False
    )
    try:
        await consumer.start()
        consumer.assign([TopicPartition(topic, number) for topic in topics for number in range(counts[topic])])
        # A position is fetched lazily; seeking here fixes the end at this moment.
        await (consumer.seek_to_beginning() if from_beginning else consumer.seek_to_end())
        yield consumer
    finally:
        await consumer.stop()
