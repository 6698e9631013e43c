"""The consumer: one handler-less FastStream subscriber for all agents, and our own pump that drives it."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from functools import partial

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError, UnsupportedCodecError
from aiokafka.structs import ConsumerRecord, TopicPartition
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from .dispatcher import Dispatcher
from .health import HealthState
from .logs import get_logger
from .settings import KafkaSettings
from .settings_kafka import CLIENT_ID
from .telemetry import Metrics
from .tracker import Tracker
from .unreadable import is_unreadable, read_next

log = get_logger(__name__)

_POLL_MS = 200
_AFTER_ERROR_S = 1.0
# A fetch costs half a millisecond of CPU however little it brings. After a small one the next is left a moment to
# fill; the records that have come do not wait for it.
_SMALL_FETCH, _BREATH_S = 256, 0.01


def make_broker(kafka: KafkaSettings) -> KafkaBroker:
    """Return FastStream's broker with the settings' address and security."""
    return KafkaBroker(
        kafka.bootstrap_servers.split(","),
        security=_security(kafka),
        request_timeout_ms=kafka.request_timeout_ms,
        client_id=CLIENT_ID,
        allow_auto_create_topics=False,
        logger=None,
    )


def _security(kafka: KafkaSettings) -> BaseSecurity | None:
    security = kafka.security
    context = security.ssl_context()
    if not security.sasl_mechanism:
        return BaseSecurity(ssl_context=context) if context else None
    password = security.password.get_secret_value() if security.password else ""
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return kinds[security.sasl_mechanism](username=security.username or "", password=password, ssl_context=context)


class Source(ConsumerRebalanceListener):  # type: ignore[misc]
    """Fetches, pauses, commits; follows the group.

    Owns the subscriber and the tracker. Invariants:
    - only explicit offsets are committed, only of partitions that are assigned, never past the first unfinished one;
    - a partition is given up only after what was under way has been finished and committed, or the time for it is up;
    - polling goes on while partitions are paused, so that the group never takes this member for dead.
    """

    def __init__(
        self,
        broker: KafkaBroker,
        topics: Iterable[str],
        dispatcher: Dispatcher,
        tracker: Tracker[TopicPartition],
        metrics: Metrics,
        health: HealthState,
        kafka: KafkaSettings,
        *,
        group: str,
    ) -> None:
        self._dispatcher, self._tracker, self._metrics, self._health = dispatcher, tracker, metrics, health
        self._drain_s = kafka.drain_s
        self._auto_offset_reset = kafka.auto_offset_reset
        self._committing = asyncio.Lock()
        self._releasing = False
        self._paused: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        """Where each partition goes on: behind the last record that was received under this assignment."""
        self._subscriber = broker.subscriber(
            *topics,
            group_id=group,
            group_instance_id=kafka.group_instance_id,
            ack_policy=AckPolicy.MANUAL,
            listener=self,
            auto_offset_reset=kafka.auto_offset_reset,
            session_timeout_ms=kafka.session_timeout_ms,
            heartbeat_interval_ms=kafka.heartbeat_interval_ms,
            rebalance_timeout_ms=kafka.rebalance_timeout_ms,
            fetch_max_wait_ms=kafka.fetch_max_wait_ms,
            fetch_min_bytes=kafka.fetch_min_bytes,
            fetch_max_bytes=kafka.fetch_max_bytes,
            max_partition_fetch_bytes=kafka.max_partition_fetch_bytes,
            isolation_level="read_committed",
        )
        dispatcher.on_reopened = self._resume

    @property
    def _consumer(self) -> AIOKafkaConsumer:
        consumer = self._subscriber.consumer
        assert consumer is not None, "the broker is not started"
        return consumer

    # -- the group ---------------------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Finish and commit what is under way; heartbeats go on meanwhile. Called with nothing before the first join."""
        self._health.group_joined = False
        if revoked:
            try:
                await self.release()
            finally:
                self._releasing = False

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        # Records may have come before this: nothing is set up here but what handlers wait for.
        partitions = list(assigned)
        self._paused.clear()
        await self._dispatcher.assign(partitions)
        self._health.group_joined = True
        log.info("partitions assigned", partitions=len(partitions))

    async def release(self) -> None:
        """Drain, commit, forget: before partitions are taken away, and before the consumer stops (which tells nobody)."""
        self._releasing = True
        drained = False
        try:
            drained = await self._dispatcher.drain(self._drain_s)
            await self.commit()
        finally:
            cut = self._tracker.revoke()
            self._positions.clear()
            log.info("partitions released", drained=drained, to_be_delivered_again=cut)

    # -- loops -------------------------------------------------------------------------------------------------------

    async def pump(self) -> None:
        """Fetch until the consumer stops."""
        while True:
            try:
                await self._fetch()
            except ConsumerStoppedError:
                return
            except (KafkaError, OSError) as error:
                log.error("fetching failed", why=type(error).__name__)
                await asyncio.sleep(_AFTER_ERROR_S)

    async def _fetch(self) -> None:
        try:
            batches = await self._consumer.getmany(timeout_ms=_POLL_MS)
        except Exception as error:
            if isinstance(error, UnsupportedCodecError):
                await self._rewind()  # raised while it unpacked records, as for those that it cannot read
            if not is_unreadable(error):
                raise
            await self._recover()
            return
        # No await from there to the pause: a rebalance or the next fetch cannot come in between.
        self._receive(batches)
        if batches and sum(map(len, batches.values())) < _SMALL_FETCH:
            await asyncio.sleep(_BREATH_S)

    def _receive(self, batches: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        if self._releasing:
            return  # not begun, so not committed: whoever has the partition next reads them again
        for partition, records in batches.items():
            self._positions[partition] = records[-1].offset + 1
        full = self._dispatcher.receive(batches)
        if full:
            for partition, offset in full.items():
                if offset is not None:
                    self._consumer.seek(partition, offset)
                    self._positions[partition] = offset
            self._paused.update(full)
            self._consumer.pause(*full)

    def _resume(self, partitions: list[TopicPartition]) -> None:
        self._paused.difference_update(partitions)
        with contextlib.suppress(IllegalStateError):
            self._consumer.resume(*(self._consumer.assignment() & set(partitions)))

    async def commit_for_ever(self, interval_s: float) -> None:
        """Commit on a timer."""
        while True:
            await asyncio.sleep(interval_s)
            await self.commit()

    async def commit(self) -> None:
        """Commit what moved. A failure is counted and tried again by the timer; the offsets stay where they were."""
        async with self._committing:
            due = self._tracker.commits(self._consumer.assignment())
            if not due:
                return
            try:
                await self._consumer.commit(due)
            except (KafkaError, OSError) as error:
                self._metrics.commit(ok=False)
                log.warning("offsets could not be committed", why=type(error).__name__)
            else:
                self._metrics.commit(ok=True)
                self._tracker.committed(due.items())

    # -- records that cannot be read ---------------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Read each partition by itself, and step over what cannot be unpacked.

        `getmany` has lost what it had taken from other partitions when it raised, so each goes back to where its last
        record was received. Raises what says something of the broker: the partition it was raised for has lost nothing.
        """
        await self._rewind()
        for partition in self._consumer.assignment() - self._paused:
            with contextlib.suppress(IllegalStateError):  # taken away meanwhile
                await read_next(
                    self._consumer, partition, partial(self._take, partition), partial(self._skip, partition)
                )

    async def _rewind(self) -> None:
        for partition in self._consumer.assignment():
            position = self._positions.get(partition)
            if position is None:
                position = await self._consumer.committed(partition)
            if partition not in self._consumer.assignment():
                continue
            if position is not None:
                self._consumer.seek(partition, position)
                self._positions[partition] = position
            elif self._auto_offset_reset == "latest":
                await self._consumer.seek_to_end(partition)
            else:
                await self._consumer.seek_to_beginning(partition)

    def _take(self, partition: TopicPartition, records: list[ConsumerRecord]) -> None:
        if records:
            self._receive({partition: records})

    def _skip(self, partition: TopicPartition, offset: int, why: str) -> None:
        if self._releasing:
            return
        log.error(
            "a record cannot be unpacked", why=why, topic=partition.topic, partition=partition.partition, offset=offset
        )
        self._positions[partition] = offset + 1
        if self._dispatcher.unreadable(partition, offset, why):
            self._paused.add(partition)
            self._consumer.pause(partition)

    # -- what metrics read -------------------------------------------------------------------------------------------

    def assigned(self) -> int:
        return len(self._assignment())

    def _assignment(self) -> set[TopicPartition]:
        """Return the partitions of this process: none before the consumer has started, and none after it has stopped."""
        consumer = self._subscriber.consumer
        return set(consumer.assignment()) if consumer is not None else set()

    def paused(self) -> int:
        return len(self._paused)

    def lag(self) -> dict[tuple[str, ...], float]:
        """Return (topic, partition) to log end less what is finished, where the log's end is known."""
        lag: dict[tuple[str, ...], float] = {}
        for partition in self._assignment():
            end = self._consumer.highwater(partition)
            if end is not None:
                finished = self._tracker.progress(partition).committable
                lag[partition.topic, str(partition.partition)] = 0 if finished is None else max(end - finished, 0)
        return lag
