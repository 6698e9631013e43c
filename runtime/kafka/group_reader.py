"""Reads topics as a member of a group, and commits what has been finished: for programs that wait for people."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, RebalanceInProgressError, UnknownMemberIdError
from aiokafka.structs import ConsumerRecord, TopicPartition

from ..settings.settings import KafkaSettings
from .consumer_stop import wait_for_stop
from .offset_tracker import Tracker
from .unreadable import is_unreadable, read_next

_MEMBERSHIP = (CommitFailedError, IllegalStateError, RebalanceInProgressError, UnknownMemberIdError)


class GroupReader:
    """A member of `group`. A record that is not finished is never committed past, so it comes again after a kill.

    `on_revoked` is called with the partitions that leave, after what is finished of them was committed.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        group: str,
        topics: Sequence[str],
        on_revoked: Callable[[Iterable[tuple[str, int]]], None] = lambda partitions: None,
    ) -> None:
        self._topics, self._on_revoked = topics, on_revoked
        self._tracker: Tracker[TopicPartition] = Tracker()
        self._next: dict[TopicPartition, int] = {}
        """Where to read on."""
        self._consumer = AIOKafkaConsumer(
            **kafka.consumer_options(),
            group_id=group,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            enable_auto_commit=False,
            fetch_max_wait_ms=kafka.fetch_max_wait_ms,
            session_timeout_ms=kafka.session_timeout_ms,
            heartbeat_interval_ms=kafka.heartbeat_interval_ms,
            rebalance_timeout_ms=kafka.rebalance_timeout_ms,
        )
        self.unreadable = 0
        """Records that the client could not unpack; they are finished."""
        self.revocations = 0
        """How often the partitions have left: they may be back, but another member may have had them between."""

    async def start(self) -> None:
        """Connect; the group is joined in the background. Raises KafkaError when no broker answers."""
        await self._consumer.start()
        self._consumer.subscribe(self._topics, listener=_Listener(self))

    async def stop(self) -> None:
        """Commit what is finished, and leave the group."""
        try:
            await self.commit()
        finally:
            await wait_for_stop(self._consumer)

    async def read(self, max_records: int, timeout_ms: int = 200) -> list[ConsumerRecord]:
        """Return the next records, each of which is to be finished. Raises what the client does, but for unreadable ones."""
        consumer = self._consumer
        found: list[ConsumerRecord] = []
        try:
            batches = await consumer.getmany(timeout_ms=timeout_ms, max_records=max_records)
            found = [record for records in batches.values() for record in records]
        except Exception as error:
            await self._seek_back()  # `getmany` has dropped the records of the other partitions
            if not is_unreadable(error):
                raise
            for each in consumer.assignment():
                skip = partial(self._skip, each)
                await read_next(consumer, each, found.extend, skip, timeout_ms=timeout_ms, max_records=max_records)
        return [record for record in found if self._begin(record)]

    def _begin(self, record: ConsumerRecord) -> bool:
        partition = TopicPartition(record.topic, record.partition)
        self._next[partition] = record.offset + 1
        return self._tracker.progress(partition).begin(record.offset)

    async def _seek_back(self) -> None:
        for each in self._consumer.assignment():
            offset = self._next.get(each)
            if offset is None:
                offset = await self._consumer.committed(each)
            if offset is None:
                offset = (await self._consumer.beginning_offsets([each]))[each]
            self._consumer.seek(each, offset)

    def _skip(self, partition: TopicPartition, offset: int, why: str) -> None:
        self.unreadable += 1
        self._next[partition] = offset + 1
        progress = self._tracker.progress(partition)
        if progress.begin(offset):
            progress.finish(offset)

    def has(self, topic: str, partition: int) -> bool:
        """Return whether a partition is assigned to this member now."""
        return TopicPartition(topic, partition) in self._consumer.assignment()

    def finish(self, topic: str, partition: int, offset: int) -> None:
        """Note that a record is accounted for. Records of partitions that left meanwhile are ignored."""
        progress = self._tracker.known(TopicPartition(topic, partition))
        if progress is not None:
            progress.finish(offset)

    @property
    def uncommitted(self) -> int:
        """The most records of a partition from its first unfinished one on."""
        known = (self._tracker.known(each) for each in self._consumer.assignment())
        return max((progress.uncommitted for progress in known if progress is not None), default=0)

    async def commit(self) -> None:
        """Commit what is finished. While the group changes, nothing is: the next call does it."""
        due = self._tracker.commits(self._consumer.assignment())
        if not due:
            return
        try:
            await self._consumer.commit(due)
        except _MEMBERSHIP:
            return
        self._tracker.record_committed(due.items())

    async def leave_partitions(self, partitions: Iterable[TopicPartition]) -> None:
        """Commit what is finished of partitions that leave, and forget them."""
        self.revocations += 1
        await self.commit()
        self._tracker.revoke()
        self._next.clear()
        self._on_revoked([(each.topic, each.partition) for each in partitions])


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, reader: GroupReader) -> None:
        self._reader = reader

    async def on_partitions_revoked(self, revoked: Any) -> None:
        await self._reader.leave_partitions(revoked)

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Nothing is to be done: positions start at the committed offsets."""
