"""Reads topics without a consumer group, so that nothing is stored on the broker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from ..settings.settings import KafkaSettings
from .consumer_stop import stop_consumer
from .topics import require_topics
from .unreadable import is_unreadable, read_next


@asynccontextmanager
async def open_reader(
    kafka: KafkaSettings, topics: Sequence[str], *, from_beginning: bool, options: Mapping[str, Any] | None = None
) -> AsyncIterator[Any]:
    """Yield a started consumer of all partitions of `topics`, positioned at their beginning or end.

    `options`: further keyword arguments of the consumer. Raises SetupError when the broker does not answer or a topic is missing.
    """
    counts = await require_topics(kafka, topics)
    consumer = AIOKafkaConsumer(
        **kafka.consumer_options(),
        fetch_max_wait_ms=kafka.fetch_max_wait_ms,
        enable_auto_commit=False,
        **(options or {}),
    )
    try:
        await consumer.start()
        consumer.assign([TopicPartition(topic, number) for topic in topics for number in range(counts[topic])])
        # A position is fetched lazily; seeking here fixes the end at this moment.
        await (consumer.seek_to_beginning() if from_beginning else consumer.seek_to_end())
        yield consumer
    finally:
        await stop_consumer(consumer)


class PartitionsReader:
    """Reads all partitions of a consumer that `open_reader` has yielded, and skips records that cannot be unpacked.

    `take` gets the records of one partition in order. `skip` gets the coordinates of a skipped record and the name of
    the error.
    """

    def __init__(
        self,
        consumer: Any,
        take: Callable[[Sequence[ConsumerRecord]], None],
        skip: Callable[[TopicPartition, int, str], None] = lambda partition, offset, why: None,
    ) -> None:
        self._consumer = consumer
        self._take, self._skip = take, skip

    async def read_more(self, timeout_ms: int, max_records: int | None = None) -> None:
        """Pass on one fetch. After a record that cannot be unpacked, `max_records` is exceeded.

        Raises what `getmany` raises for any other reason; no record is lost by it.
        """
        consumer = self._consumer
        found = {partition: await _current_position(consumer, partition) for partition in consumer.assignment()}
        positions = {partition: offset for partition, offset in found.items() if offset is not None}
        try:
            batches = await consumer.getmany(timeout_ms=timeout_ms, max_records=max_records)
        except Exception as error:
            # `getmany` has dropped the records of the other partitions.
            for partition, offset in positions.items():
                consumer.seek(partition, offset)
            if not is_unreadable(error):
                raise
            for partition in positions:
                await read_next(consumer, partition, self._take, partial(self._skip, partition), timeout_ms=timeout_ms)
        else:
            for records in batches.values():
                self._take(records)


async def _current_position(consumer: Any, partition: TopicPartition) -> int | None:
    """Return the position; None while the client looks for one, which may take as long as the broker is away."""
    try:
        async with asyncio.timeout(0):
            offset: int = await consumer.position(partition)
            return offset
    except TimeoutError:
        return None
