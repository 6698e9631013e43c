"""Runs handlers, the longer form of an agent: a task for each record, in order of the key where that is asked for."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
from aiokafka.structs import ConsumerRecord, TopicPartition

from ..schemas.deadletter import DeadLetterReason as Reason
from ..schemas.envelope import CE_ID, HOPS, REQUEST_ID, TRACEPARENT
from ..schemas.ids import default_request_id
from .agent import Handler, Predicts, Publish
from .deadletters import Message
from .errors import Closed, RecordError, place_of
from .logs import get_logger
from .outbox import Outbox, Outcome
from .pulse import Pulse
from .records import read_headers, read_hops
from .results import hand_on
from .tracing import Tracing
from .tracker import Progress

log = get_logger(__name__)

_DOUBT_S: Final = 0.05
_Waiting = tuple[ConsumerRecord, Progress]
_Lane = tuple[TopicPartition, bytes | int]


class _Named(msgspec.Struct):
    id: str | None = None


_read_name: Final = msgspec.json.Decoder(_Named).decode


class HandlerRunner:
    """Owns the records of one handler between their delivery and their end.

    Invariants:
    - with ordering by key, at most one record of a key is under way, and they go in the order of their partition;
    - nothing of a key is begun after a record of it that was not finished, until partitions are assigned again;
    - at most `most` records are under way, so that a slow handler is not flooded;
    - records of a partition wait until the handler is ready for it (`ready`);
    - what was begun before a freeze is not sent when the freeze has cost the partition (see `Pulse`).
    """

    def __init__(
        self,
        handler: Handler,
        engine: Predicts,
        outbox: Outbox,
        *,
        most: int = 256,
        limit: int = 4096,
        on_enter: Callable[[int], None],
        max_value_bytes: int,
        max_hops: int | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`limit`: waiting records from which on a partition is full. `on_enter` counts records that are under way."""
        self.handler = handler
        self._engine = engine
        self._outbox = outbox
        self._most, self._limit = most, limit
        self._on_enter = on_enter
        self._tracing = tracing
        self._max_value_bytes, self._max_hops = max_value_bytes, max_hops
        self._lanes: dict[_Lane, deque[_Waiting]] = {}
        self._turn: deque[_Lane] = deque()
        self._waiting: dict[TopicPartition, int] = {}
        self._full: set[TopicPartition] = set()
        self._ready: set[TopicPartition] = set()
        self._tasks: set[asyncio.Task[bool]] = set()
        self._preparing: asyncio.Task[None] | None = None
        self._pulse: Pulse | None = None
        self._beating: asyncio.Task[None] | None = None
        self._assignment = 0
        self._void = -1
        """The last assignment that ended in doubt, or was followed by another: nothing of it is sent any more."""

    @property
    def waiting(self) -> int:
        return sum(self._waiting.values())

    def receive(self, partition: TopicPartition, records: Sequence[ConsumerRecord], progress: Progress) -> bool:
        """Queue delivered records; True when the partition is full now."""
        for record in records:
            if progress.begin(record.offset):
                self._queue(partition, record, progress)
        if self._waiting.get(partition, 0) >= self._limit:
            self._full.add(partition)
        self._start()
        return partition in self._full

    def reopened(self) -> list[TopicPartition]:
        """Return partitions that were full and have room again; each is told once."""
        found = [partition for partition in self._full if self._waiting.get(partition, 0) <= self._limit // 2]
        self._full.difference_update(found)
        return found

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Let the handler get ready for its partitions, in the background, then let their records go.

        Not awaited by whoever is told of the assignment: no heartbeat is sent until that returns, and restoring state
        may take longer than a session.
        """
        mine = frozenset(p for p in partitions if p.topic in self.handler.topics)
        loop = asyncio.get_running_loop()
        self._void = self._assignment - 1
        if self._pulse is not None:
            self._pulse.trust()
        elif self.handler.freeze_s is not None:
            self._pulse = Pulse(self.handler.freeze_s)
            self._beating = loop.create_task(self._pulse.beat_for_ever())
        self._preparing = loop.create_task(self._prepare(mine))

    async def _prepare(self, mine: frozenset[TopicPartition]) -> None:
        try:
            published = await self.handler.assigned(mine)
            if published:
                # Of no record: they keep no request's id and have no cause.
                messages = [hand_on(publish, self.handler.name, 0, None) for publish in published]
                await asyncio.shield(self._outbox.put(messages))
        except Exception as error:
            log.exception("a handler could not get ready", agent=self.handler.name)
            self._outbox.fail(error)
            return
        self._ready.update(mine)
        self._start()

    def clear(self) -> None:
        """Forget what waits: it will be delivered again."""
        if self._in_doubt:
            self._void = self._assignment
        self._assignment += 1
        if self._preparing is not None:
            self._preparing.cancel()
        self._lanes.clear()
        self._turn.clear()
        self._waiting.clear()
        self._full.clear()
        self._ready.clear()

    def _queue(self, partition: TopicPartition, record: ConsumerRecord, progress: Progress) -> None:
        ordered = self.handler.ordering == "key" and record.key is not None
        lane = (partition, record.key if ordered else record.offset)
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = deque()
            self._turn.append(lane)
        queue.append((record, progress))
        self._waiting[partition] = self._waiting.get(partition, 0) + 1

    def _start(self) -> None:
        """Start the next record of each lane that has none under way, while there is room."""
        for _ in range(len(self._turn)):
            if len(self._tasks) >= self._most:
                return
            lane = self._turn.popleft()
            if lane[0] in self._ready:
                self._run(lane)
            else:
                self._turn.append(lane)

    def _run(self, lane: _Lane) -> None:
        queue = self._lanes[lane]
        record, progress = queue.popleft()
        self._waiting[lane[0]] -= 1
        self._on_enter(1)
        task = asyncio.get_running_loop().create_task(self._handle(record, progress, self._assignment))
        self._tasks.add(task)

        def ended(task: "asyncio.Task[bool]") -> None:
            self._tasks.discard(task)
            if self._is_finished(task) and self._lanes.get(lane) is queue:  # not cleared meanwhile
                if queue:
                    self._turn.append(lane)
                else:
                    del self._lanes[lane]
            self._start()

        task.add_done_callback(ended)

    def _is_finished(self, task: "asyncio.Task[bool]") -> bool:
        """Say whether a record's task has finished it. If not, its lane stays closed: the next one must not go first."""
        if task.cancelled():
            return False
        if (error := task.exception()) is not None:
            self._outbox.fail(error if isinstance(error, Exception) else Closed("a record was given up"))
            return False
        return task.result()

    async def _handle(self, record: ConsumerRecord, progress: Progress, assignment: int) -> bool:
        """Take a record all the way; False when it was given up, and will be delivered again."""
        outcome = Outcome()
        outcome.works.append((record, progress))
        name = self.handler.name
        try:
            published = await self._published(record, outcome)
        except Closed:
            return self._give_up(record)
        except RecordError as error:
            self._outbox.dead_letter(outcome, record, error, name)
            for span in outcome.spans:
                span.failed(error.reason)
        else:
            for message, essential in published:
                outcome.add(message, record, name, essential=essential)
            outcome.answered[name, record.topic] = [record.timestamp]
        if not await self._may_send(assignment):
            return self._give_up(record)
        if not await self._outbox.send(outcome):
            self.handler.given_up(record)
            return False
        self.handler.finished(record)
        return True

    def _give_up(self, record: ConsumerRecord) -> bool:
        self._on_enter(-1)
        self.handler.given_up(record)
        return False

    @property
    def _in_doubt(self) -> bool:
        return self._pulse is not None and self._pulse.in_doubt

    async def _may_send(self, assignment: int) -> bool:
        """Say whether the partitions of an assignment are still ours to answer for, once that is certain.

        A drain goes on sending: the group waits for it. After a freeze the group has not waited.
        """
        while self._in_doubt:
            if assignment != self._assignment:
                return False
            await asyncio.sleep(_DOUBT_S)
        return assignment > self._void

    async def _published(self, record: ConsumerRecord, outcome: Outcome) -> list[tuple[Message, bool]]:
        """Return what the handler publishes for a record, and of each message whether it is essential."""
        try:
            headers = read_headers(record.headers)
            hops = read_hops(headers.get(HOPS), self._max_hops)
        except RecordError:
            if self._tracing is not None:
                outcome.trace(self._tracing.begin_refused(record, None))
            raise
        request_id = headers.get(REQUEST_ID) or headers.get(CE_ID) or self._id_in(record.value)
        if request_id is None:
            request_id = default_request_id(record.topic, record.partition, record.offset, record.timestamp)
        text = headers.get(TRACEPARENT)
        trace = None if text is None else text.encode()
        if self._tracing is not None and (span := self._tracing.begin(record, request_id, trace)) is not None:
            span.handled_by(self.handler.name)
            trace = span.traceparent
            outcome.trace(span)
        if record.value is not None and len(record.value) > self._max_value_bytes:
            raise RecordError(Reason.TOO_LARGE, f"the value has {len(record.value)} bytes")
        try:
            published: list[Publish] = [*await self.handler.handle(record, self._engine)]
            return [(hand_on(publish, request_id, hops, trace), publish.essential) for publish in published]
        except (RecordError, Closed):
            raise
        except Exception as error:
            where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            log.error("a handler failed", agent=self.handler.name, why=place_of(error), **where)
            raise RecordError(Reason.AGENT_FAILED, f"{self.handler.name} raised {type(error).__name__}") from error

    def _id_in(self, value: bytes | None) -> str | None:
        """Return the `id` in a record's body; None for whatever has none, the handler will say what is wrong with it."""
        if value is None or len(value) > self._max_value_bytes:
            return None
        try:
            return _read_name(value).id or None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
