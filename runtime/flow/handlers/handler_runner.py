"""Runs handlers: a task for each record, in order by key where the handler asks for it."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiokafka.structs import ConsumerRecord, TopicPartition

from ...agent.handler import Handler, Predicts
from ...errors import Closed, RecordError
from ...field_paths import FieldPaths
from ...kafka.offset_tracker import CompletionSink, Progress
from ...observe.tracing import Tracing
from ...output.bounds import UnderWay, held_bytes
from ...output.outbox import Outbox
from ...output.outcome import Outcome, Outgoing, UnparsedWork
from ...output.suspending import Suspending
from .freeze_detector import FreezeDetector
from .handler_assignment import get_ready
from .handler_attempts import HandlerAttempts, HandlerRetries, InProgress, Postponed
from .handler_slots import HandlerSlots, Slot

_DOUBT_S: Final = 0.05
TASK_BYTES: Final = 6500
"""Of a record in progress: its task, the frames of its calls, its outcome. Measured with tracemalloc."""
_Waiting = tuple[ConsumerRecord, CompletionSink, int, int]
"""Record, progress, bytes in memory, and number of the attempt."""
_Lane = tuple[TopicPartition, bytes | int]


@dataclass(slots=True)
class _Count:
    records: int = 0
    """Records that wait for their turn."""
    bytes: int = 0
    """Bytes of all records that are not finished."""


class HandlerRunner:
    """Owns the records of one handler between their delivery and their end.

    Invariants:
    - with ordering by key, at most one record of a key is in progress, in the order of the partition;
    - after a record that was not finished, no other record of its key starts until partitions are assigned again;
    - at most `most` records are in progress, and no more bytes than the process allows, or one record; a record that
      waits for the suspended handler, or for its next attempt, is not in progress;
    - the records of a partition that are not finished, in progress or not, are bounded in bytes;
    - a record that its handler has not finished at its deadline becomes a dead letter;
    - records of a partition wait until the handler's `assigned` hook has returned for it;
    - messages of work started before a freeze are not sent if the partition was lost (see `FreezeDetector`).
    """

    def __init__(
        self,
        handler: Handler,
        engine: Predicts,
        outbox: Outbox,
        *,
        under_way: UnderWay,
        most: int = 256,
        limit: int = 4096,
        on_enter: Callable[[int], None],
        on_truncated: Callable[[str], None],
        max_value_bytes: int,
        max_hops: int | None = None,
        tracing: Tracing | None = None,
        suspending: Suspending,
        retrying: HandlerRetries | None = None,
        fields: Mapping[str, FieldPaths] | None = None,
    ) -> None:
        """`limit`: waiting records at which a partition is full. `on_enter` counts records in progress. `under_way`: bytes in
        progress of the whole process. `fields`: field paths of requests, by topic.
        """
        self.handler = handler
        self._outbox = outbox
        self._slots = HandlerSlots(under_way, most)
        self._limit = limit
        self.partition_bytes = under_way.limit
        """Bytes at which a partition is full; it has room again at half of that."""
        self._on_enter = on_enter
        self._suspending = suspending
        self._attempts = HandlerAttempts(
            handler,
            engine,
            suspending=suspending,
            retrying=retrying,
            on_enter=on_enter,
            on_truncated=on_truncated,
            max_value_bytes=max_value_bytes,
            max_hops=max_hops,
            tracing=tracing,
            fields=fields or {},
        )
        self._lanes: dict[_Lane, deque[_Waiting]] = {}
        self._turn: deque[_Lane] = deque()
        self._requeued = 0
        self._not_ready: dict[TopicPartition, list[_Lane]] = {}
        """Lanes of partitions for which the handler is not ready; all other runnable lanes are in `_turn`."""
        self._waiting: dict[TopicPartition, _Count] = {}
        self._ready: set[TopicPartition] = set()
        self._tasks: dict[asyncio.Task[bool], tuple[_Lane, Slot]] = {}
        self._preparing: asyncio.Task[None] | None = None
        self._freeze_detector: FreezeDetector | None = None
        self._detecting: asyncio.Task[None] | None = None
        self._assignment = 0
        self._void = -1
        """The last assignment whose messages are no longer sent: it ended in doubt, or was followed by another."""

    @property
    def waiting(self) -> int:
        """The number of records that wait for their turn, except behind a record that pauses; 0 while the handler is
        suspended.
        """
        if self.is_suspended:
            return 0
        behind = sum(len(self._lanes.get(lane, ())) for lane in self._pausing_lanes())
        return sum(count.records for count in self._waiting.values()) - behind

    def count_pausing(self, partition: TopicPartition) -> int:
        """Return the number of records of a partition that pause before their next attempt, or wait behind such a record."""
        return sum(1 + len(self._lanes.get(lane, ())) for lane in self._pausing_lanes() if lane[0] == partition)

    def _pausing_lanes(self) -> list[_Lane]:
        return [lane for lane, slot in self._tasks.values() if not slot.counts]

    def held_bytes(self, partition: TopicPartition) -> int:
        """Return the bytes of the records of a partition that are not finished."""
        count = self._waiting.get(partition)
        return 0 if count is None else count.bytes

    def active_bytes(self, partition: TopicPartition) -> int:
        """Return the bytes of those records that neither pause nor wait for the suspended handler."""
        if self.is_suspended:
            return 0
        return self.held_bytes(partition) - self._attempts.pauses.bytes[partition]

    @property
    def is_suspended(self) -> bool:
        return self.handler.name in self._suspending.suspended

    def receive(self, partition: TopicPartition, records: Sequence[ConsumerRecord], progress: Progress) -> int | None:
        """Queue delivered records; returns the offset of the first record that exceeds the partition's bytes."""
        count = self._waiting.setdefault(partition, _Count())
        left_at = None
        for record in records:
            size = held_bytes(record)
            if count.bytes and count.bytes + size > self.partition_bytes:
                left_at = record.offset
                break
            if progress.begin(record.offset):
                count.records += 1
                count.bytes += size
                self._queue(partition, record, progress, size)
        self.start()
        return left_at

    def requeue(
        self, partition: TopicPartition, record: ConsumerRecord, progress: CompletionSink, attempts: int
    ) -> None:
        """Queue another attempt at a record that was read from `partition`. It does not wait for others of its key."""
        size = held_bytes(record)
        count = self._waiting.setdefault(partition, _Count())
        count.records += 1
        count.bytes += size
        self._requeued += 1
        lane = (partition, -self._requeued)  # originals of several partitions may have the same offset
        self._lanes[lane] = deque([(record, progress, size, attempts)])
        self._turn.append(lane)
        self.start()

    def is_full(self, partition: TopicPartition) -> bool:
        count = self._waiting.get(partition)
        return count is not None and (count.records >= self._limit or count.bytes >= self.partition_bytes)

    def has_room(self, partition: TopicPartition) -> bool:
        """Return whether a partition that was full may be filled again: at half of both limits."""
        count = self._waiting.get(partition)
        return count is None or (count.records <= self._limit // 2 and count.bytes <= self.partition_bytes // 2)

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Call the handler's `assigned` hook in the background, then start the records of its partitions.

        The group's assignment callback does not wait for it: no heartbeats are sent during the callback, and restoring state
        may take longer than the session timeout.
        """
        own_partitions = frozenset(p for p in partitions if p.topic in self.handler.topics)
        loop = asyncio.get_running_loop()
        self._void = self._assignment - 1
        if self._freeze_detector is not None:
            self._freeze_detector.reset()
        elif self.handler.freeze_s is not None:
            self._freeze_detector = FreezeDetector(self.handler.freeze_s)
            self._detecting = loop.create_task(self._freeze_detector.run())
        self._preparing = loop.create_task(self._prepare(own_partitions, self._assignment))

    async def _prepare(self, partitions: frozenset[TopicPartition], assignment: int) -> None:
        if not await get_ready(
            self.handler, partitions, self._suspending, self._outbox, lambda: assignment == self._assignment
        ):
            return
        self._ready.update(partitions)
        for partition in partitions:
            self._turn.extend(self._not_ready.pop(partition, ()))
        self._suspending.record_sent(self.handler.name)
        self.start()

    def clear(self) -> None:
        """Drop the waiting records: they will be delivered again."""
        if self._in_doubt:
            self._void = self._assignment
        self._assignment += 1
        if self._preparing is not None:
            self._preparing.cancel()
        self._lanes.clear()
        self._turn.clear()
        self._not_ready.clear()
        self._waiting.clear()
        self._ready.clear()
        self._attempts.pauses.end_all()
        self._slots.admit_returning(all_of_them=True)

    def move_early(self, must_move: Callable[[TopicPartition], bool]) -> None:
        """Move pausing records of some partitions to the topic of retries. Records that keep the order of their key stay."""
        self._attempts.pauses.end_early(must_move)

    def end_assignment(self) -> None:
        """Notify the handler that its partitions are revoked. Messages of records still in progress are not sent."""
        self._void = self._assignment - 1
        # A failure of this hook is harmless: nothing of the old assignment is sent, and `assigned` starts the next one.
        self._attempts.notify(self.handler.revoked)

    def _queue(self, partition: TopicPartition, record: ConsumerRecord, progress: Progress, size: int) -> None:
        ordered = self.handler.ordering == "key" and record.key is not None
        lane = (partition, record.key if ordered else record.offset)
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = deque()
            if partition in self._ready:
                self._turn.append(lane)
            else:
                self._not_ready.setdefault(partition, []).append(lane)
        queue.append((record, progress, size, 1))

    def start(self) -> None:
        """Continue records whose wait is over, then start the next record of each lane without one, within the limits."""
        self._slots.admit_returning()
        if self.is_suspended or not self._outbox.gate.opened.is_set():
            return
        while self._turn and self._slots.has_room:
            self._run(self._turn.popleft())

    def _run(self, lane: _Lane) -> None:
        queue = self._lanes[lane]
        record, progress, size, attempts = queue.popleft()
        count = self._waiting[lane[0]]
        count.records -= 1
        count.bytes += TASK_BYTES
        slot, assignment = self._slots.take(size), self._assignment
        self._on_enter(1)
        current = InProgress(
            record,
            lane[0],
            size,
            most_pausing_bytes=self.partition_bytes // 2,
            is_ordered=isinstance(lane[1], bytes),
            slot=slot,
            is_assigned=lambda: assignment == self._assignment,
        )
        task = asyncio.get_running_loop().create_task(self._handle(current, progress, assignment, attempts))
        self._tasks[task] = lane, slot

        def on_end(task: "asyncio.Task[bool]") -> None:
            del self._tasks[task]
            count.bytes -= size + TASK_BYTES
            slot.release()
            if self._is_finished(task) and self._lanes.get(lane) is queue:  # not cleared meanwhile
                if queue:
                    self._turn.append(lane)
                else:
                    del self._lanes[lane]
            self.start()

        task.add_done_callback(on_end)

    def _is_finished(self, task: "asyncio.Task[bool]") -> bool:
        """Return whether a record's task has finished it. If not, its lane stays closed, to keep the order."""
        if task.cancelled():
            return False
        if (error := task.exception()) is not None:
            self._outbox.fail(error if isinstance(error, Exception) else Closed("a record was given up"))
            return False
        return task.result()

    async def _handle(self, current: InProgress, progress: CompletionSink, assignment: int, attempts: int) -> bool:
        """Run the handler on a record and send its messages; False when it was not finished and will be delivered again."""
        outcome, record = Outcome(), current.record
        outcome.works.append(UnparsedWork(record, progress, attempts))
        outcome.may_send = partial(self._may_send, assignment)
        outcome.while_waiting = current.slot.given_back
        name = self.handler.name
        try:
            published = await self._attempts.run(current, outcome)
        except Closed:
            return self._give_up(record)
        except Postponed:
            pass
        except RecordError as error:
            self._outbox.dead_letter(outcome, record, error, name)
            for span in outcome.spans:
                span.failed(error.reason)
        except BaseException:
            self._give_up(record)
            raise
        else:
            for message, publish in published:
                outcome.add(
                    Outgoing(message, record, name, publish.essential, publish.best_effort, first=publish.first)
                )
            outcome.answered[name, record.topic] = [record]
        if not await self._may_send(assignment):
            return self._give_up(record)
        if not await self._outbox.send(outcome):
            self._attempts.notify(self.handler.given_up, record)
            return False
        self._attempts.notify(self.handler.finished, record)
        return True

    def _give_up(self, record: ConsumerRecord) -> bool:
        self._on_enter(-1)
        self._attempts.notify(self.handler.given_up, record)
        return False

    @property
    def _in_doubt(self) -> bool:
        return self._freeze_detector is not None and self._freeze_detector.in_doubt

    async def _may_send(self, assignment: int) -> bool:
        """Wait until ownership is certain; return whether messages of an assignment may be sent.

        During a drain they may, because the group waits for it. After a freeze the group has not waited.
        """
        while self._in_doubt:
            if assignment != self._assignment:
                return False
            await asyncio.sleep(_DOUBT_S)
        return assignment > self._void
