"""Number and age of the records in the dead-letter topic, from offsets alone: no record is read."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from ..observe.logs import get_logger
from ..settings.settings import KafkaSettings
from .consumer_stop import wait_for_stop

log = get_logger(__name__)

INTERVAL_S: Final = 30.0
_PATIENCE_S: Final = 10.0


class Depth(NamedTuple):
    """Number of records between log start and log end, including redrive markers, and the time of the oldest."""

    records: int
    oldest: float | None
    """Unix time in seconds; None where there is no record."""


class DeadLetterDepth:
    """Keeps the latest reading; it is unknown while the broker does not answer.

    Needs DESCRIBE on the topic, but not READ.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        partitions: int,
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kafka, self._interval_s, self._clock = kafka, interval_s, clock
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]
        self._depth: Depth | None = None
        self._failing = False

    def records(self) -> dict[tuple[str, ...], float]:
        """Return the number of records as a reading without labels; empty while it is unknown."""
        return {} if self._depth is None else {(): float(self._depth.records)}

    def age_s(self) -> dict[tuple[str, ...], float]:
        """Return the age of the oldest record; empty while it is unknown, 0 where there is none."""
        if self._depth is None:
            return {}
        oldest = self._depth.oldest
        return {(): 0.0 if oldest is None else max(self._clock() - oldest, 0.0)}

    async def run(self) -> None:
        """Read every `interval_s` until cancelled. An error makes the reading unknown and is retried."""
        while True:
            consumer = AIOKafkaConsumer(**self._kafka.client_options(), enable_auto_commit=False)
            try:
                await consumer.start()
                while True:
                    async with asyncio.timeout(_PATIENCE_S):
                        self._depth = await read_depth(consumer, self._partitions)
                    self._failing = False
                    await asyncio.sleep(self._interval_s)
            except (KafkaError, OSError, TimeoutError) as error:
                self._depth = None
                if not self._failing:  # log once per outage
                    log.warning("the depth of the dead-letter topic is not known", why=type(error).__name__)
                self._failing = True
            finally:
                await wait_for_stop(consumer)
            await asyncio.sleep(self._interval_s)


async def read_depth(consumer: Any, partitions: Sequence[TopicPartition]) -> Depth:
    """Read the depth with a started consumer. Its errors are passed on."""
    ends = await consumer.end_offsets(partitions)
    starts = await consumer.beginning_offsets(partitions)
    records = sum(max(ends[each] - starts[each], 0) for each in partitions)
    held = [each for each in partitions if ends[each] > starts[each]]
    # The first record not older than 1970 is the oldest one.
    firsts = (await consumer.offsets_for_times(dict.fromkeys(held, 0))).values() if held else ()
    oldest = min((found.timestamp / 1000 for found in firsts if found is not None), default=None)
    return Depth(records, oldest)
