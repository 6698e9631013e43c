"""The way of a record through the process: decode, admit, predict, decide, publish, finish.

Works on chunks and batches: nothing is awaited for a single record.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from aiokafka.structs import ConsumerRecord, TopicPartition

from ..schemas.deadletter import DeadLetterReason as Reason
from .admission import Admission
from .agent import Handler, Prediction
from .batch_policy import Entry
from .deciding import Deciding
from .delivery import Delivery, coordinates
from .errors import Closed, RecordError
from .handlers import HandlerRunner
from .logs import get_logger
from .outbox import Outbox, Outcome, PublisherLike
from .records import read_request
from .reviews import Reviews
from .routes import Route
from .telemetry import Metrics
from .tracing import Tracing
from .tracker import Progress, Tracker

log = get_logger(__name__)

Batches = Mapping[TopicPartition, Sequence[ConsumerRecord]]


class EngineLike(Protocol):
    """What the dispatcher needs of the engine (`runtime.testing` has a fake)."""

    @property
    def queued_tokens(self) -> int: ...
    @property
    def queued_rows(self) -> int: ...
    @property
    def token_budget(self) -> int: ...
    @property
    def lookahead(self) -> tuple[int, int]: ...
    @property
    def model(self) -> Any: ...
    async def predict(
        self, text: str, tasks: Iterable[str] | None = None, *, thresholds: Mapping[str, Any] | None = None
    ) -> Prediction: ...
    async def encode(self, texts: Sequence[str], model: Any = None) -> Sequence[Any]: ...
    def submit(self, entries: Iterable[Entry]) -> None: ...
    def on_room(self, callback: Callable[[], None]) -> None: ...


class Dispatcher:
    """Owns every record between its delivery and its commit.

    Invariants:
    - what fails for one record or one agent changes nothing for the others;
    - no more than the engine's `lookahead` is admitted to it, and nothing while as much is still being sent:
      whatever waits, waits in `Admission`, which decides who goes next;
    - while the publisher cannot send, nothing new is admitted.
    """

    def __init__(
        self,
        engine: EngineLike,
        publisher: PublisherLike,
        tracker: Tracker[TopicPartition],
        metrics: Metrics,
        *,
        routes: Mapping[str, Route],
        dead_letters: str,
        max_value_bytes: int,
        max_hops: int | None = None,
        queue_budgets: float = 4.0,
        chunk_rows: int = 256,
        aligned: frozenset[str] = frozenset(),
        handlers: Iterable[Handler] = (),
        reviews: Reviews | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """`aligned`: output topics with as many partitions as the inputs, where results keep the partition number."""
        self._tracing = tracing
        self._engine = engine
        self._tracker = tracker
        self._metrics = metrics
        self._routes = routes
        self._max_value_bytes, self._max_hops = max_value_bytes, max_hops
        self._chunk_rows = chunk_rows
        self.outbox = Outbox(
            publisher,
            metrics,
            dead_letters=dead_letters,
            known_topics=[
                *(topic for route in routes.values() for bound in route.agents for topic in bound.agent.outputs),
                *(topic for handler in handlers for topic in handler.outputs),
                *([reviews.topic] if reviews else ()),
            ],
            on_done=self._done,
        )
        self._deciding = Deciding(self.outbox, metrics, aligned=aligned, reviews=reviews)
        self._runners = [
            HandlerRunner(
                handler,
                engine,
                self.outbox,
                on_enter=self._enter,
                max_value_bytes=max_value_bytes,
                max_hops=max_hops,
                tracing=tracing,
            )
            for handler in handlers
        ]
        self._runner_of = {topic: runner for runner in self._runners for topic in runner.handler.topics}
        metrics.expect_dead_letters(
            {bound.agent.name for route in routes.values() for bound in route.agents}
            | {runner.handler.name for runner in self._runners}
        )
        self._admission: Admission[TopicPartition, Delivery] = Admission(
            quantum=max(1, engine.token_budget // 4), lane_limit=int(engine.token_budget * queue_budgets)
        )
        self._admitting: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.on_reopened: Callable[[list[TopicPartition]], None] = lambda partitions: None
        """Called with partitions that were full and have room again."""
        engine.on_room(self._wake.set)

    # -- intake ------------------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        return bool(self._admission.tokens or self._busy or any(runner.waiting for runner in self._runners))

    def receive(self, batches: Batches) -> list[TopicPartition]:
        """Take fetched records; returns the partitions that are full now and are to be paused."""
        full = []
        rejected = Outcome()
        for partition, records in batches.items():
            progress = self._tracker.progress(partition)
            if (runner := self._runner_of.get(partition.topic)) is not None:
                if runner.receive(partition, records, progress):
                    full.append(partition)
                continue
            items = self._read(records, progress, rejected)
            if self._admission.add(partition.topic, partition, items):
                full.append(partition)
        if rejected.works:
            self._enter(len(rejected.works))
            self.outbox.send(rejected)
        self._wake.set()
        return full

    def unreadable(self, partition: TopicPartition, offset: int, why: str) -> None:
        """Dead-letter a record that the client could not unpack: its coordinates are all that there is."""
        record = ConsumerRecord(partition.topic, partition.partition, offset, -1, 0, None, None, None, -1, -1, ())
        progress = self._tracker.progress(partition)
        if progress.begin(offset):
            error = RecordError(Reason.UNREADABLE, f"the record cannot be read: {why}")
            outcome = Outcome()
            self.outbox.reject(outcome, record, progress, error)
            self._enter(1)
            self.outbox.send(outcome)

    def _read(
        self, records: Sequence[ConsumerRecord], progress: Progress, rejected: Outcome
    ) -> list[tuple[Delivery, int]]:
        items = []
        for record in records:
            if not progress.begin(record.offset):
                continue
            route = self._routes[record.topic]
            request = None
            try:
                request = read_request(record, self._max_value_bytes, self._max_hops)
                delivery = Delivery(record, progress, request)
                delivery.settle(route)
            except RecordError as error:
                self.outbox.reject(rejected, record, progress, error)
                if self._tracing is not None:
                    rejected.trace(self._tracing.begin_refused(record, request), error)
            else:
                if self._tracing is not None:
                    delivery.trace(self._tracing)
                # Four letters a token is English; it only weighs who goes next. The engine counts exactly.
                items.append((delivery, 2 + len(request.text) // 4))
        return items

    # -- to the engine -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Feed the engine, for ever. Cancel it to stop intake; then `drain`."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._admission.tokens:
                await self.outbox.open()
                tokens_ahead, rows_ahead = self._engine.lookahead
                tokens, rows = tokens_ahead - self._engine.queued_tokens, rows_ahead - self._engine.queued_rows
                if tokens <= 0 or rows <= 0 or self.outbox.pending >= rows_ahead:
                    break
                deliveries = self._admission.take(tokens, min(rows, self._chunk_rows))
                if not deliveries:
                    break
                self._enter(len(deliveries))
                if reopened := self._admission.reopened():
                    self.on_reopened(reopened)
                await self._admit(deliveries)

    async def _admit(self, deliveries: list[Delivery]) -> None:
        model, routes = self._engine.model, self._routes
        deliveries = [
            delivery
            for delivery in deliveries
            if delivery.route is routes[delivery.record.topic] or self._reroute(delivery, routes)
        ]
        try:
            encoded = await self._engine.encode([delivery.request.text for delivery in deliveries], model)
        except Closed:
            raise
        except Exception:
            if len(deliveries) > 1:
                for delivery in deliveries:
                    await self._admit([delivery])
                return
            log.exception("a text could not be tokenised", **coordinates(deliveries[0].record))
            self._reject(deliveries[0], RecordError(Reason.INVALID, "the text cannot be tokenised"))
            return
        self._engine.submit(
            [
                Entry(delivery.request.text, delivery.tasks(), ids, self, delivery, delivery.route.thresholds, model)
                for delivery, ids in zip(deliveries, encoded, strict=True)
            ]
        )

    def _reroute(self, delivery: Delivery, routes: Mapping[str, Route]) -> bool:
        """The model was exchanged while the record waited: settle its tasks anew; False when it is a dead letter now."""
        try:
            delivery.settle(routes[delivery.record.topic])
        except RecordError as error:
            self._reject(delivery, error)
            return False
        return True

    def _reject(self, delivery: Delivery, error: RecordError) -> None:
        outcome = Outcome()
        self.outbox.reject(outcome, delivery.record, delivery.progress, error)
        outcome.trace(delivery.span, error)
        self.outbox.send(outcome)

    def reroute(self, routes: Mapping[str, Route]) -> None:
        """Answer with the tasks and thresholds of another model. Exchange it in the engine in the same breath."""
        self._routes = routes

    # -- from the engine ---------------------------------------------------------------------------------------------

    def deliver(self, entries: list[Entry]) -> None:
        """Turn a batch of answers into results and send them.

        Whatever should still go wrong ends the process: records that nobody finishes would be waited for without end.
        """
        try:
            outcome, closed = self._deciding.outcome(entries)
        except Exception as error:  # noqa: BLE001
            self.outbox.fail(error)
            return
        if closed:
            self._done(closed)  # not answered and not finished: they will be delivered again
        if outcome.works:
            self.outbox.send(outcome)

    def take_back(self, entries: list[Entry]) -> None:
        """Admit records anew: the model that encoded them does not answer, and another has taken its place."""
        task = asyncio.get_running_loop().create_task(self._admit([entry.context for entry in entries]))
        self._admitting.add(task)
        task.add_done_callback(self._admitted)

    def _admitted(self, task: "asyncio.Task[None]") -> None:
        self._admitting.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.outbox.fail(error)

    def _enter(self, records: int) -> None:
        self._busy += records
        if self._busy:
            self._idle.clear()
        else:
            self._idle.set()

    def _done(self, records: int) -> None:
        self._enter(-records)
        self._wake.set()
        for runner in self._runners:
            if reopened := runner.reopened():
                self.on_reopened(reopened)

    # -- ends of an assignment ---------------------------------------------------------------------------------------

    async def drain(self, budget_s: float) -> bool:
        """Forget what waits (it will be delivered again) and wait for what is under way; False when time ran out."""
        self._admission.clear()
        for runner in self._runners:
            runner.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(budget_s):
                await self._idle.wait()
        for runner in self._runners:
            runner.handler.revoked()
        return not self._busy

    async def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Tell handlers which partitions are theirs now."""
        for runner in self._runners:
            runner.assign(partitions)
