"""Restores state: reads partitions of a compacted topic from the beginning to the current end, without a group."""

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
from .consumer_stop import stop_consumer
from .unreadable import read_next

log = get_logger(__name__)

_FETCH_BYTES: Final = 4 * 1024 * 1024
_LOG_S: Final = 5.0
_AFTER_ERROR_S: Final = 0.5

Take = Callable[[int, bytes | None, bytes | None], None]
"""Called with partition, key and value of each record, in partition order. Records may be repeated."""


@dataclass
class Restored:
    """The result of a restore.

    `unreadable` counts records that the client could not unpack. Their keys are not known, so an older record of the
    same key stays in effect.
    """

    records: int = 0
    unreadable: int = 0
    seconds: float = 0.0


async def read_to_end(
    kafka: KafkaSettings, topic: str, partitions: Iterable[int], take: Take, *, timeout_s: float = 300.0
) -> Restored:
    """Call `take` with every record of these partitions.

    The end is fixed when this is called; later records are not waited for. Retries while the broker does not answer.
    Raises MurmuraError when the end is not reached within `timeout_s`.
    """
    began = time.monotonic()
    assigned = [TopicPartition(topic, number) for number in sorted(partitions)]
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    restored = await _attempt(kafka, assigned, take)
                except (KafkaError, OSError) as error:
                    log.warning("state cannot be read, trying again", topic=topic, why=type(error).__name__)
                    await asyncio.sleep(_AFTER_ERROR_S)
                else:
                    restored.seconds = time.monotonic() - began
                    return restored
    except TimeoutError:
        raise MurmuraError(f"topic {topic}: its end was not reached within {timeout_s:g} s") from None


async def _attempt(kafka: KafkaSettings, assigned: list[TopicPartition], take: Take) -> Restored:
    consumer = AIOKafkaConsumer(
        **kafka.consumer_options(),
        enable_auto_commit=False,
        # With the default, the end, a consumer that gets its assignment too early may start at the end.
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
        fetch_max_wait_ms=50,
    )
    try:
        await consumer.start()
        ends = await consumer.end_offsets(assigned)
        consumer.assign(assigned)
        reading = _Reading(consumer, sum(ends.values()))
        for partition in assigned:
            await reading.read_partition(partition, ends[partition], take)
        return reading.restored
    finally:
        await stop_consumer(consumer)


class _Reading:
    """One attempt. Reads partition by partition: when `getmany` raises for one, it loses the records of the others."""

    def __init__(self, consumer: Any, ends: int) -> None:
        self._consumer = consumer
        self._ends = ends
        self._logged = time.monotonic()
        self.restored = Restored()

    async def read_partition(self, partition: TopicPartition, end: int, take: Take) -> None:
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
