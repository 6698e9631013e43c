"""The consumer: one handler-less FastStream subscriber for all agents, and our own pump that drives it."""

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

from ..kafka.offset_tracker import Tracker
from ..kafka.start_positions import StartPositions
from ..kafka.unreadable import is_unreadable, read_next
from ..observe.health import HealthState
from ..observe.logs import get_logger
from ..observe.metrics import Metrics
from ..settings.settings import KafkaSettings
from .dispatcher import Dispatcher
from .fetch_faults import FetchFaults
from .fetch_positions import FetchPositions
from .source_readings import SourceReadings

log = get_logger(__name__)

_POLL_MS = 200
_COMMIT_S = 5.0
"""How long one commit may take. aiokafka tries for as long as the broker does not answer."""
_LOGS_S = 1.0
"""How often the logs of paused partitions are looked at."""
# A fetch costs half a millisecond of CPU however little it brings. After a small one the next is left a moment to
# fill; the records that have come do not wait for it.
_SMALL_FETCH, _BREATH_S = 256, 0.01


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
        give_up_s: float = 60.0,
    ) -> None:
        """`give_up_s`: how long the broker may refuse every fetch for good before `pump` raises."""
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
        """Finish and commit what is under way; heartbeats go on meanwhile. Called with nothing before the first join."""
        self._health.group_joined = False
        if revoked:
            try:
                await self.release()
            except Exception as error:  # noqa: BLE001 - aiokafka would log it and go on
                self._dispatcher.outbox.fail(error)
            finally:
                self._releasing = False

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        # Records may have come before this: nothing is set up here but what handlers wait for.
        try:
            partitions = list(assigned)
            self._paused.clear()
            self._faults.blocked.keep(())
            await self._dispatcher.assign(partitions)
        except Exception as error:  # noqa: BLE001 - aiokafka would log it and go on
            self._dispatcher.outbox.fail(error)
            return
        self._health.group_joined = True
        log.info("partitions assigned", partitions=len(partitions))

    async def release(self, deadline: float | None = None) -> None:
        """Drain, commit, forget: before partitions are taken away, and before the consumer stops (which tells nobody).

        `deadline` (monotonic, s) is when the last commit is given up. A broker that does not answer costs no more than that.
        """
        self._releasing = True
        drained = False
        try:
            drained = await self._dispatcher.drain(self._drain_s)
            await self.commit(_COMMIT_S if deadline is None else deadline - time.monotonic())
        finally:
            cut = self._tracker.revoke()
            self._positions.clear()
            log.info("partitions released", drained=drained, to_be_delivered_again=cut)

    # -- loops -------------------------------------------------------------------------------------------------------

    async def pump(self) -> None:
        """Fetch until the consumer stops. Raises what keeps it from fetching for good."""
        while True:
            try:
                self._try_again()
                await self._fetch()
            except ConsumerStoppedError:
                return
            except (KafkaError, OSError, TimeoutError) as error:
                await self._settle(error)

    async def _settle(self, error: Exception) -> None:
        """Deal with what a fetch raised: it is about the start of a partition, about some partitions, or about all."""
        try:
            if missing := self._faults.without_position(error):
                await self._positions.begin(missing)
                await self.commit()  # a crash must not move where they begin
                return
            if refused := self._faults.out_of_range(error):
                for found, position in refused.items():
                    await self._positions.find_again(found, position)
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
                # Raised while it unpacked records: what it had taken from other partitions is lost.
                await self._positions.rewind()
                await self.commit()
                await self._read_singly()
                return
            raise
        # No await from there to the pause: a rebalance or the next fetch cannot come in between.
        self._receive(batches)
        if batches and sum(map(len, batches.values())) < _SMALL_FETCH:
            await asyncio.sleep(_BREATH_S)

    def _receive(self, batches: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        if self._releasing:
            return  # not begun, so not committed: whoever has the partition next reads them again
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
        """Look for new logs where nothing is fetched, for ever."""
        while True:
            await asyncio.sleep(_LOGS_S)
            paused = self._paused & self._consumer.assignment()
            if paused and not self._releasing:
                await self._positions.find_new_logs(paused)

    async def commit_for_ever(self, interval_s: float) -> None:
        """Commit on a timer."""
        while True:
            await asyncio.sleep(interval_s)
            await self.commit()

    async def commit(self, timeout_s: float = _COMMIT_S) -> None:
        """Commit what moved. A failure is counted and tried again by the timer; the offsets stay where they were."""
        try:
            async with asyncio.timeout(max(timeout_s, 0.0)), self._committing:
                due = self._tracker.commits(self._consumer.assignment())
                if not due:
                    return
                await self._consumer.commit(due)
                self._tracker.committed(due.items())
        except (KafkaError, OSError, TimeoutError) as error:
            self._metrics.commit(ok=False)
            log.warning("offsets could not be committed", why=type(error).__name__)
        else:
            self._metrics.commit(ok=True)

    # -- partitions that need care -----------------------------------------------------------------------------------

    async def _read_singly(self) -> None:
        """Read each partition by itself, over what cannot be unpacked. What one raises takes nothing from the others."""
        for partition in self._consumer.assignment() - self._paused:
            if partition in self._faults.blocked:
                continue
            take, skip = partial(self._take, partition), partial(self._skip, partition)
            try:
                await read_next(self._consumer, partition, take, skip)
            except ConsumerStoppedError:
                raise
            except IllegalStateError:
                continue  # taken away meanwhile
            except UnsupportedCodecError as error:
                self._block([partition], error)  # the codec is missing, not the record
            except (KafkaError, OSError, TimeoutError) as error:
                await self._settle(error)

    def _take(self, partition: TopicPartition, records: list[ConsumerRecord]) -> None:
        self._receive({partition: records})

    def _skip(self, partition: TopicPartition, offset: int, why: str) -> None:
        if self._releasing:
            return
        log.error(
            "a record cannot be unpacked", why=why, offset=offset, topic=partition.topic, partition=partition.partition
        )
        self._positions.skip(partition, offset)
        if self._dispatcher.unreadable(partition, offset, why):
            self._pause([partition])

    def _block(self, partitions: Iterable[TopicPartition], error: Exception) -> None:
        present = [p for p in partitions if p in self._consumer.assignment()]
        self._faults.block(present, error)
        if present:
            self._consumer.pause(*present)

    def _try_again(self) -> None:
        if due := self._faults.blocked.due(time.monotonic()):
            self._unpause(due)

    # -- what is watched ---------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Note which partitions are fetched; call it once a second. Raises when the client has died."""
        if (consumer := self._subscriber.consumer) is not None:
            stamps = {p: consumer.last_poll_timestamp(p) for p in consumer.assignment()}
            self._faults.look(stamps, self._paused)
            self._faults.check_alive(consumer)

    def readings(self, retries: Collection[str] = ()) -> SourceReadings:
        """Return what metrics read; `retries`: topics whose records wait on purpose, which is no lag."""
        times, paused = self._faults.times, self._paused
        return SourceReadings(lambda: self._subscriber.consumer, self._tracker, times, paused, retries)
