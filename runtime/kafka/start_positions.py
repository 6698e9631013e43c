"""Where a partition is read from when the group has no offset for it, or when its log does not have the offset."""

import asyncio
from collections.abc import Collection, Iterable
from typing import Any, Final, Literal, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from ..observe.logs import quiet_client
from ..settings.settings import KafkaSettings

_AGAIN_S: Final = 0.2


class Found(NamedTuple):
    """Where to go on after a position that the log does not have.

    `deleted`: retention has taken what was not read, up to this offset. `new_log`: the topic was made again or truncated, and
    what stands in it has not been read. `lagging_replica`: the leader has the position; fetch it again.
    """

    offset: int
    cause: Literal["deleted", "new_log", "lagging_replica"]


class StartPositions:
    """Decides instead of the client, whose resets tell nobody and which skips the first records of a new partition."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        self._kafka, self._group = kafka, group
        self._from_end: frozenset[TopicPartition] = frozenset()

    async def look(self, counts: dict[str, int], topics: Iterable[str]) -> None:
        """Before the group is joined, note which partitions may start at their end (`auto_offset_reset: latest`).

        These are the present ones of topics for which the group has no offset at all. A partition that comes later is read
        from its beginning. Raises KafkaError or TimeoutError when the group's offsets are not to be had.
        """
        if self._kafka.auto_offset_reset != "latest":
            return
        async with asyncio.timeout(self._kafka.start_timeout_s):
            known = {partition.topic for partition in await self._committed()}
        self._from_end = frozenset(
            TopicPartition(topic, number) for topic in topics if topic not in known for number in range(counts[topic])
        )

    async def _committed(self) -> list[TopicPartition]:
        admin = AIOKafkaAdminClient(**self._kafka.client_options())
        with quiet_client():
            try:
                await admin.start()
                while True:
                    try:
                        offsets = await admin.list_consumer_group_offsets(self._group)
                        return [partition for partition, committed in offsets.items() if committed.offset >= 0]
                    except KafkaError as error:
                        if not error.retriable:
                            raise
                    await asyncio.sleep(_AGAIN_S)
            finally:
                await admin.close()

    def note_committed(self, partitions: Collection[TopicPartition]) -> None:
        """Never start these at their end again. Where the group loses their offsets, their topic was created again."""
        if self._from_end:
            self._from_end = self._from_end.difference(partitions)

    async def first(self, consumer: Any, partition: TopicPartition) -> int:
        """Return the offset from which a partition without a committed offset is read."""
        ask = consumer.end_offsets if partition in self._from_end else consumer.beginning_offsets
        offset: int = (await ask([partition]))[partition]
        return offset

    async def after(self, consumer: Any, partition: TopicPartition, position: int) -> Found:
        """Return where to go on after `position`, which the broker has refused as out of range."""
        beginning: int = (await consumer.beginning_offsets([partition]))[partition]
        if position < beginning:
            return Found(beginning, "deleted")
        if self._kafka.client_rack is not None:
            # A follower may lag behind the leader, which alone answers here.
            end: int = (await consumer.end_offsets([partition]))[partition]
            if position <= end:
                return Found(position, "lagging_replica")
        return Found(beginning, "new_log")
