"""The consumer: one FastStream subscriber without handlers for all agents, and the loop that fetches from it."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError, UnsupportedCodecError
from aiokafka.structs import ConsumerRecord, TopicPartition
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from ...kafka.offset_tracker import Tracker
from ...kafka.start_positions import StartPositions
from ...kafka.unreadable import is_unreadable, read_next
from ...observe.health import HealthState
from ...observe.logs import get_logger
from ...observe.metrics import Metrics
from ...settings.settings import KafkaSettings
from ..dispatcher import Dispatcher
from .fetch_faults import FetchFaults
from .fetch_positions import FetchPositions
from .source_readings import SourceReadings

log = get_logger(__name__)

_POLL_MS = 200
_COMMIT_S = 5.0
"""Time limit for one commit. aiokafka itself retries for as long as the broker does not answer."""
_LOGS_S = 1.0
"""Interval of the check for new logs of paused partitions."""
# A fetch costs half a millisecond of CPU even when it is small. After a small fetch the next one is delayed, so that it
# returns more records; the fetched records do not wait.
_SMALL_FETCH, _SMALL_FETCH_PAUSE_S = 256, 0.01


class Source(ConsumerRebalanceListener):  # type: ignore[misc]
    """Fetches, pauses and commits, and follows the group's assignments.

    Owns the subscriber and the tracker. Invariants:
    - only explicit offsets of assigned partitions are committed, never past the first unfinished one;
    - a partition is released only after the work in progress is finished and committed, or after `drain_s`;
    - polling continues while partitions are paused, so that the group keeps this member.
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
        give_up_s: float = 60.0,
    ) -> None:
        """`give_up_s`: how long a permanent error may fail every fetch before `pump` raises."""
        self._dispatcher, self._tracker, self._metrics, self._health = dispatcher, tracker, metrics, health
        self._drain_s = kafka.drain_s
        self._committing = asyncio.Lock()
        self._releasing = False
        self._paused: set[TopicPartition] = set()
        self.starts = StartPositions(kafka, group)
        self._positions = FetchPositions(
            lambda: self._consumer, self.starts, tracker, metrics, on_new_log=dispatcher.begin_new_log
        )
        self._faults = FetchFaults(metrics, health, give_up_s)
        self._subscriber = broker.subscriber(
            *topics,
            group_id=group,
            group_instance_id=kafka.group_instance_id,
            ack_policy=AckPolicy.MANUAL,
            listener=self,
            auto_offset_reset="none",
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
        """Finish and commit the work in progress; heartbeats continue. Called with no partitions before the first join."""
        self._health.group_joined = False
        if revoked:
            try:
                await self.release()
            except Exception as error:  # noqa: BLE001 - aiokafka would log it and continue
                self._dispatcher.outbox.fail(error)
            finally:
                self._releasing = False

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        # Records may arrive before this call: only handlers, which wait for it, are prepared here.
        try:
            partitions = list(assigned)
            self._paused.clear()
            self._faults.blocked.keep(())
            self.starts.keep(lambda topic: bool(self._consumer.partitions_for_topic(topic)))
            await self._dispatcher.assign(partitions)
        except Exception as error:  # noqa: BLE001 - aiokafka would log it and continue
            self._dispatcher.outbox.fail(error)
            return
        self._health.group_joined = True
        log.info("partitions assigned", partitions=len(partitions))

    async def release(self, deadline: float | None = None) -> None:
        """Drain, commit, and drop all state: before partitions are revoked, and before the consumer stops (which calls no
        listener).

        `deadline` (monotonic, s) is the time limit of the last commit when the broker does not answer.
        """
        self._releasing = True
        drained = False
        try:
            drained = await self._dispatcher.drain(self._drain_s)
            await self.commit(_COMMIT_S if deadline is None else deadline - time.monotonic())
        finally:
            unfinished = self._tracker.revoke()
            self._positions.clear()
            log.info("partitions released", drained=drained, to_be_delivered_again=unfinished)

    # -- loops -------------------------------------------------------------------------------------------------------

    async def pump(self) -> None:
        """Fetch until the consumer stops. Raises an error that prevents fetching permanently."""
        while True:
            try:
                self._unblock_due()
                await self._fetch()
            except ConsumerStoppedError:
                return
            except (KafkaError, OSError, TimeoutError) as error:
                await self._handle_fetch_error(error)

    async def _handle_fetch_error(self, error: Exception) -> None:
        """Handle an error of a fetch: about a missing position, about some partitions, or about all."""
        try:
            if missing := self._faults.find_without_position(error):
                await self._positions.begin(missing)
                await self.commit()  # a crash must not change the start
                return
            if refused := self._faults.find_out_of_range(error):
                for partition, position in refused.items():
                    await self._positions.find_new_start(partition, position)
                return
        except (KafkaError, OSError, TimeoutError) as another:
            error = another
        affected = [p for p in self._consumer.assignment() if self._faults.concerns(error, p)]
        if affected:
            self._block(affected, error)
        else:
            await self._faults.wait(error)

    async def _fetch(self) -> None:
        try:
            batches = await self._consumer.getmany(timeout_ms=_POLL_MS)
        except Exception as error:
            if is_unreadable(error) or isinstance(error, UnsupportedCodecError):
                # Raised while records are unpacked: records already taken from other partitions are lost.
                self._positions.rewind()
                await self.commit()
                await self._read_singly()
                return
            raise
        self._faults.times.note_poll()
        # No await between the fetch and the pause: neither a rebalance nor another fetch may happen in between.
        self._receive(batches)
        if batches and sum(map(len, batches.values())) < _SMALL_FETCH:
            await asyncio.sleep(_SMALL_FETCH_PAUSE_S)

    def _receive(self, batches: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        if self._releasing or self._positions.is_between:
            return  # not started, so not committed: the next owner of the partition reads them again
        now = time.monotonic()
        self._positions.advance(batches)
        full = self._dispatcher.receive(batches)
        for partition, offset in full.items():
            if offset is not None:
                self._positions.seek(partition, offset)
        self._pause(full)
        for partition, records in batches.items():
            self._tracker.progress(partition).mark(records[0].offset, now)
        self._positions.follow(batches if batches else self._consumer.assignment())

    def _pause(self, partitions: Iterable[TopicPartition]) -> None:
        present = self._consumer.assignment() & set(partitions)
        if present:
            self._paused.update(present)
            self._consumer.pause(*present)

    def _resume(self, partitions: list[TopicPartition]) -> None:
        self._paused.difference_update(partitions)
        self._unpause(partitions)

    def _unpause(self, partitions: Iterable[TopicPartition]) -> None:
        free = {p for p in partitions if p not in self._paused and p not in self._faults.blocked}
        with contextlib.suppress(IllegalStateError):
            self._consumer.resume(*(self._consumer.assignment() & free))

    async def watch_logs(self) -> None:
        """Check paused partitions for new logs, until cancelled."""
        while True:
            await asyncio.sleep(_LOGS_S)
            paused = self._paused & self._consumer.assignment()
            if paused and not self._releasing:
                await self._positions.find_new_logs(paused)

    async def commit_periodically(self, interval_s: float) -> None:
        """Commit every `interval_s`, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self.commit()

    async def commit(self, timeout_s: float = _COMMIT_S) -> None:
        """Commit changed offsets. A failure is counted, and the same offsets are committed again at the next interval."""
        try:
            async with asyncio.timeout(max(timeout_s, 0.0)), self._committing:
                due = self._tracker.commits(self._consumer.assignment())
                if not due:
                    return
                await self._consumer.commit(due)
                self._tracker.record_committed(due.items())
                self.starts.note_committed(due)
        except (KafkaError, OSError, TimeoutError) as error:
            self._metrics.commit(ok=False)
            log.warning("offsets could not be committed", why=type(error).__name__)
        else:
            self._metrics.commit(ok=True)

    # -- unreadable and blocked partitions ---------------------------------------------------------------------------

    async def _read_singly(self) -> None:
        """Fetch each partition separately and skip records that cannot be unpacked. An error affects only its partition."""
        for partition in self._consumer.assignment() - self._paused:
            if partition in self._faults.blocked:
                continue
            take, skip = partial(self._receive_from, partition), partial(self._skip, partition)
            try:
                await read_next(self._consumer, partition, take, skip)
            except ConsumerStoppedError:
                raise
            except IllegalStateError:
                continue  # revoked meanwhile
            except UnsupportedCodecError as error:
                self._block([partition], error)  # the codec is not installed; the records are intact
            except (KafkaError, OSError, TimeoutError) as error:
                await self._handle_fetch_error(error)

    def _receive_from(self, partition: TopicPartition, records: list[ConsumerRecord]) -> None:
        self._receive({partition: records})

    def _skip(self, partition: TopicPartition, offset: int, why: str) -> None:
        if self._releasing:
            return
        log.error(
            "a record cannot be unpacked", why=why, offset=offset, topic=partition.topic, partition=partition.partition
        )
        self._positions.skip(partition, offset)
        if self._dispatcher.dead_letter_unreadable(partition, offset, why):
            self._pause([partition])

    def _block(self, partitions: Iterable[TopicPartition], error: Exception) -> None:
        present = [p for p in partitions if p in self._consumer.assignment()]
        self._faults.block(present, error)
        if present:
            self._consumer.pause(*present)

    def _unblock_due(self) -> None:
        if due := self._faults.blocked.due(time.monotonic()):
            self._unpause(due)

    # -- health and metrics ------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Record which partitions are fetched; call it once a second. Raises MurmuraError when the client has ended."""
        if (consumer := self._subscriber.consumer) is not None:
            stamps = {p: consumer.last_poll_timestamp(p) for p in consumer.assignment()}
            self._faults.update(stamps, self._paused)
            self._faults.check_alive(consumer)

    def make_readings(self, retries: Collection[str] = ()) -> SourceReadings:
        """Return the values for metrics; `retries`: topics whose records wait on purpose, excluded from lag."""
        times, paused, idle = self._faults.times, self._paused, self._dispatcher.idle_records
        return SourceReadings(lambda: self._subscriber.consumer, self._tracker, times, paused, retries, idle=idle)
