"""Restoring state: a compacted topic's partitions read from their beginning to their present end, without a group."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

from ..errors import MurmuraError
from ..observe.logs import get_logger
from ..settings.settings import KafkaSettings
from .unreadable import read_next

log = get_logger(__name__)

_FETCH_BYTES: Final = 4 * 1024 * 1024
_LOG_S: Final = 5.0
_AFTER_ERROR_S: Final = 0.5

Take = Callable[[int, bytes | None, bytes | None], None]
"""Told partition, key and value of each record, in the order of its partition. May be told the same ones again."""


@dataclass
class Restored:
    """What was read.

    `unreadable` counts records that the client could not unpack. Nothing is known of them, not even their keys: an older
    record of the same key stands then for the key.
    """

    records: int = 0
    unreadable: int = 0
    seconds: float = 0.0


async def read_to_end(
    kafka: KafkaSettings, topic: str, partitions: Iterable[int], take: Take, *, timeout_s: float = 300.0
) -> Restored:
    """Give every record of these partitions to `take`.

    "The end" is where they end when this is called: what is written meanwhile is not waited for. A broker that does not
    answer is asked again; MurmuraError when the end is not reached within `timeout_s`.
    """
    began = time.monotonic()
    mine = [TopicPartition(topic, number) for number in sorted(partitions)]
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    restored = await _attempt(kafka, mine, take)
                except (KafkaError, OSError) as error:
                    log.warning("state cannot be read, trying again", topic=topic, why=type(error).__name__)
                    await asyncio.sleep(_AFTER_ERROR_S)
                else:
                    restored.seconds = time.monotonic() - began
                    return restored
    except TimeoutError:
        raise MurmuraError(f"topic {topic}: its end was not reached within {timeout_s:g} s") from None


async def _attempt(kafka: KafkaSettings, mine: list[TopicPartition], take: Take) -> Restored:
    consumer = AIOKafkaConsumer(
        **kafka.consumer_options(),
        enable_auto_commit=False,
        # Its default, the end, is where a consumer that is told of its partitions a moment too early may start.
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
        fetch_max_wait_ms=50,
    )
    try:
        await consumer.start()
        ends = await consumer.end_offsets(mine)
        consumer.assign(mine)
        reading = _Reading(consumer, sum(ends.values()))
        for partition in mine:
            await reading.partition(partition, ends[partition], take)
        return reading.restored
    finally:
        await consumer.stop()


class _Reading:
    """One attempt. Partition by partition: when `getmany` raises for one, it loses what it took from the others."""

    def __init__(self, consumer: Any, ends: int) -> None:
        self._consumer = consumer
        self._ends = ends
        self._logged = time.monotonic()
        self.restored = Restored()

    async def partition(self, partition: TopicPartition, end: int, take: Take) -> None:
        def take_all(records: list[ConsumerRecord]) -> None:
            for record in records:
                take(partition.partition, record.key, record.value)
            self.restored.records += len(records)
            self._log_progress(partition)

        while await self._consumer.position(partition) < end:
            await read_next(self._consumer, partition, take_all, self._count_unreadable)

    def _count_unreadable(self, offset: int, why: str) -> None:
        self.restored.unreadable += 1

    def _log_progress(self, partition: TopicPartition) -> None:
        if time.monotonic() - self._logged >= _LOG_S:
            self._logged = time.monotonic()
            log.info(
                "restoring state",
                topic=partition.topic,
                partition=partition.partition,
                records=self.restored.records,
                at_most=self._ends,
            )
