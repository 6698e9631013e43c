"""The consumer: one handler-less FastStream subscriber for all agents, and our own pump that drives it."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, IllegalStateError, KafkaError
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
            await self.release()
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
        drained = await self._dispatcher.drain(self._drain_s)
        await self.commit()
        cut = self._tracker.revoke()
        self._positions.clear()
        log.info("partitions released", drained=drained, to_be_delivered_again=cut)

    # -- loops -------------------------------------------------------------------------------------------------------

    async def pump(self) -> None:
        """Fetch until the consumer stops."""
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=_POLL_MS)
            except ConsumerStoppedError:
                return
            except CorruptRecordException as error:
                await self._recover(error)
            except (KafkaError, OSError) as error:
                log.error("fetching failed", why=type(error).__name__)
                await asyncio.sleep(_AFTER_ERROR_S)
            except Exception as error:  # noqa: BLE001
                # aiokafka raises whatever unpacking a record raises, a header name that is not UTF-8 for example.
                await self._recover(error)
            else:
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

    async def _recover(self, error: Exception) -> None:
        """A fetched batch could not be unpacked. It never will be: find it, and step over what cannot be read.

        `getmany` has lost what it had taken from other partitions when it raised, so each goes back to where its last
        record was received, and is then read by itself.
        """
        log.error("a fetched record cannot be read", why=type(error).__name__)
        for partition in self._consumer.assignment():
            await self._rewind(partition)
        for partition in self._consumer.assignment() - self._paused:
            try:
                self._receive(await self._consumer.getmany(partition, timeout_ms=_POLL_MS))
            except ConsumerStoppedError:
                raise
            except Exception:  # noqa: BLE001 - whatever it was, it is found below
                await self._rewind(partition)
                await self._read_one_by_one(partition)

    async def _rewind(self, partition: TopicPartition) -> None:
        position = self._positions.get(partition)
        if position is None:
            position = await self._consumer.committed(partition)
        if position is not None:
            self._consumer.seek(partition, position)
            self._positions[partition] = position
        else:
            await self._consumer.seek_to_beginning(partition)

    async def _read_one_by_one(self, partition: TopicPartition) -> None:
        """Read a partition record by record, dead-lettering what cannot be read, until one can after that."""
        stepped_over = False
        while partition in self._consumer.assignment():
            try:
                batches = await self._consumer.getmany(partition, timeout_ms=_POLL_MS, max_records=1)
            except ConsumerStoppedError:
                raise
            except Exception as error:  # noqa: BLE001 - it becomes the dead letter's reason
                offset = await self._consumer.position(partition)
                full = self._dispatcher.unreadable(partition, offset, type(error).__name__)
                self._consumer.seek(partition, offset + 1)
                self._positions[partition] = offset + 1
                if full:  # its dead letters are not taken as fast as they come
                    self._paused.add(partition)
                    self._consumer.pause(partition)
                    return
                stepped_over = True
                continue
            self._receive(batches)
            if stepped_over or not batches:
                return

    # -- what metrics read -------------------------------------------------------------------------------------------

    def assigned(self) -> int:
        return len(self._consumer.assignment())

    def paused(self) -> int:
        return len(self._paused)

    def lag(self) -> dict[tuple[str, ...], float]:
        """Return (topic, partition) to log end less what is finished, where the log's end is known."""
        lag: dict[tuple[str, ...], float] = {}
        for partition in self._consumer.assignment():
            end = self._consumer.highwater(partition)
            if end is not None:
                finished = self._tracker.progress(partition).committable
                lag[partition.topic, str(partition.partition)] = 0 if finished is None else max(end - finished, 0)
        return lag
