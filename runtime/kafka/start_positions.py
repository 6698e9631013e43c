"""Decides where to read a partition without a committed offset, or with an offset that its log does not contain."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, Literal, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from ..observe.logs import quiet_client
from ..settings.settings import KafkaSettings

_AGAIN_S: Final = 0.2


class NewStart(NamedTuple):
    """Where to continue after a position that the log does not contain.

    `deleted`: retention deleted unread records up to this offset. `new_log`: the topic was recreated or truncated, and its
    records have not been read. `lagging_replica`: the leader has the position; fetch it again.
    """

    offset: int
    cause: Literal["deleted", "new_log", "lagging_replica"]


class StartPositions:
    """Replaces the client's reset policy, which is silent and skips the first records of a new partition."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        self._kafka, self._group = kafka, group
        self._from_end: frozenset[TopicPartition] = frozenset()

    async def prepare(self, counts: dict[str, int], topics: Iterable[str]) -> None:
        """Determine which partitions may start at their end (`auto_offset_reset: latest`). Call it before joining the group.

        These are the existing partitions of topics without any committed offset. Partitions added later are read from their
        beginning. Raises KafkaError or TimeoutError when the group's offsets cannot be read.
        """
        if self._kafka.auto_offset_reset != "latest":
            return
        async with asyncio.timeout(self._kafka.start_timeout_s):
            known = {partition.topic for partition in await self._read_committed()}
        self._from_end = frozenset(
            TopicPartition(topic, number) for topic in topics if topic not in known for number in range(counts[topic])
        )

    async def _read_committed(self) -> list[TopicPartition]:
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
        """Never start these at their end again: if the group loses their offsets, their topic was recreated."""
        if self._from_end:
            self._from_end = self._from_end.difference(partitions)

    def keep(self, exists: Callable[[str], bool]) -> None:
        """Never start at their end the partitions of topics that do not exist now: the next of that name are new."""
        self._from_end = frozenset(partition for partition in self._from_end if exists(partition.topic))

    async def find_first(self, consumer: Any, partition: TopicPartition) -> int:
        """Return the offset from which a partition without a committed offset is read."""
        lookup = consumer.end_offsets if partition in self._from_end else consumer.beginning_offsets
        offset: int = (await lookup([partition]))[partition]
        return offset

    async def find_after(self, consumer: Any, partition: TopicPartition, position: int) -> NewStart:
        """Return where to continue after `position`, which the broker refused as out of range."""
        beginning: int = (await consumer.beginning_offsets([partition]))[partition]
        if position < beginning:
            return NewStart(beginning, "deleted")
        if self._kafka.client_rack is not None:
            # A follower may lag behind the leader, which alone answers here.
            end: int = (await consumer.end_offsets([partition]))[partition]
            if position <= end:
                return NewStart(position, "lagging_replica")
        return NewStart(beginning, "new_log")
