"""The way of a record through the process: decode, admit, predict, decide, publish, finish.

Works on chunks and batches: nothing is awaited for a single record.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

from aiokafka.structs import TopicPartition

from ..agent.handler import Handler
from ..agent.routes import Route
from ..batching.engine_port import EngineLike
from ..batching.policy import Entry
from ..field_paths import FieldPaths
from ..kafka.offset_tracker import Tracker
from ..observe.metrics import Metrics
from ..observe.tracing import Tracing
from ..output.bounds import Bounds, UnderWay
from ..output.dead_letter_gate import DeadLetterGate
from ..output.outbox import Outbox, PublisherLike
from ..output.reviews import Reviews
from ..output.suspending import Suspending
from ..wire.dead_letter import MakeLetter, dead_letter
from .admission import Admission
from .deciding import Deciding
from .expiring import Expiring
from .feeding import Feeding
from .handler_runner import HandlerRunner
from .intake import Batches, Full, Intake, Queue
from .readmission import Readmission
from .retrying import Retrying


class Dispatcher:
    """Owns every record between its delivery and its commit.

    Invariants:
    - what fails for one record or one agent changes nothing for the others;
    - no more than the engine's `lookahead` is admitted to it, and nothing while as much is still being sent:
      whatever waits, waits in `Admission`, which decides who goes next;
    - nothing is admitted while the records under way hold their part of the process's bytes;
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
        make_letter: MakeLetter = dead_letter,
        gate: DeadLetterGate | None = None,
        suspending: Suspending | None = None,
        retrying: Retrying | None = None,
        max_value_bytes: int,
        max_hops: int | None = None,
        fields: Mapping[str, FieldPaths] | None = None,
        queue_budgets: float = 4.0,
        bounds: Bounds | None = None,
        chunk_rows: int = 256,
        aligned: Callable[[], frozenset[tuple[str, str]]] = frozenset,
        handlers: Iterable[Handler] = (),
        reviews: Reviews | None = None,
        tracing: Tracing | None = None,
        clock: Callable[[], float] | None = time.time,
    ) -> None:
        """`aligned` returns the pairs (topic of requests, topic of results) where results keep the partition number now.

        `queue_budgets`: token budgets of waiting texts from which on a partition is full. `clock`: seconds since 1970, by
        which requests are too old; None: none ever is.
        """
        bounds, self._tracing = bounds or Bounds(), tracing
        self._engine, self._metrics = engine, metrics
        self._wake, self._idle, self._busy = asyncio.Event(), asyncio.Event(), 0
        self._idle.set()
        self._routes, self._chunk_rows = routes, chunk_rows
        self.suspending = suspending or Suspending.configured(routes, handlers)
        self.retrying = retrying or Retrying({}, app="", topic=None)
        self.outbox = Outbox(
            publisher,
            metrics,
            dead_letters=dead_letters,
            make_letter=make_letter,
            gate=gate,
            suspending=self.suspending,
            declared_topics=[*self.suspending.declared_topics, *([reviews.topic] if reviews else ())],
            on_done=self._done,
        )
        self._deciding = Deciding(
            self.outbox, metrics, aligned=aligned, reviews=reviews, suspending=self.suspending, retrying=self.retrying
        )
        self._under_way = UnderWay(bounds.under_way_bytes)
        self._feeding = Feeding(
            engine,
            self.outbox,
            self.suspending,
            Expiring(self.suspending, model=self._serving_model, aligned=aligned, clock=clock),
            self._under_way,
            routes=routes,
            sink=self,
            tracing=tracing,
            on_enter=self._enter,
            on_done=self._done,
        )
        self._runners = [
            HandlerRunner(
                handler,
                engine,
                self.outbox,
                under_way=self._under_way,
                on_enter=self._enter,
                max_value_bytes=max_value_bytes,
                max_hops=max_hops,
                tracing=tracing,
                suspending=self.suspending,
                retrying=self.retrying,
            )
            for handler in handlers
        ]
        self._runner_of = {topic: runner for runner in self._runners for topic in runner.handler.topics}
        metrics.expect_dead_letters(self.suspending.agents)
        metrics.expect_expired(bound.agent.name for route in routes.values() for bound in route.agents)
        metrics.watch(suspended=self.suspending.readings)
        self._queue: Queue = Admission(
            quantum=max(1, engine.token_budget // 4),
            lane_limit=int(engine.token_budget * queue_budgets),
        )
        self._intake = Intake(
            self._queue,
            tracker,
            bounds,
            runners={self.retrying.topic or "": self.retrying, **self._runner_of},
            max_value_bytes=max_value_bytes,
            max_hops=max_hops,
            tracing=tracing,
            fields=fields,
            blocks=lambda partition: self.suspending.blocks(partition) or self.retrying.blocks(partition),
        )
        self._readmission = Readmission(
            self._intake,
            self._queue,
            self.outbox,
            engine,
            routes=routes,
            runners=self._runner_of,
            on_enter=self._enter,
            on_wake=self._wake.set,
            on_go_on=self._go_on,
        )
        self.suspending.releases = self.retrying.line = self._readmission
        self.suspending.overflow = self.retrying.overflow if self.retrying.topic else None
        self.on_reopened: Callable[[list[TopicPartition]], None] = lambda partitions: None
        """Called with partitions that were full and have room again."""
        self._under_way.on_free = self._freed
        self.outbox.gate.on_open = self._freed
        engine.on_room(self._wake.set)

    def _serving_model(self) -> tuple[str, int]:
        manifest = self._engine.model.manifest
        return manifest.name, manifest.version

    @property
    def has_work(self) -> bool:
        return bool(self._queue.tokens or self._busy or any(runner.waiting for runner in self._runners))

    def receive(self, batches: Batches) -> Full:
        """Take fetched records; returns the partitions that are full now, and where fetching them has to go on."""
        full = self._intake.take(batches, self._routes, self._engine.model.manifest.limits.max_tokens)
        self._wake.set()
        return full

    def unreadable(self, partition: TopicPartition, offset: int, why: str) -> bool:
        """Dead-letter a record that the client could not unpack; True when its partition is full now."""
        full = self._intake.reject_unreadable(partition, offset, why)
        self._wake.set()
        return full

    def begin_new_log(self, partition: TopicPartition) -> None:
        """Make room for another log of a partition. What waits of the earlier one is answered beside it."""
        self._intake.begin_new_log(partition)
        self._reopen()

    async def run(self) -> None:
        """Feed the engine, for ever. Raises what no record is to blame for."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue.tokens:
                await self.outbox.open()
                tokens_ahead, rows_ahead = self._engine.lookahead
                tokens, rows = tokens_ahead - self._engine.queued_tokens, rows_ahead - self._engine.queued_rows
                if tokens <= 0 or rows <= 0 or self.outbox.pending >= rows_ahead:
                    break
                waiting = self._queue.bytes
                items = self._queue.take(tokens, min(rows, self._chunk_rows), self._under_way.bytes_left)
                if not items:
                    break
                self._enter(len(items))
                self._under_way.begin(waiting - self._queue.bytes)
                self._reopen()
                await self._feeding.pass_on(items)

    def _go_on(self) -> None:
        self._reopen()
        self._freed()

    def _freed(self) -> None:
        self._wake.set()
        for runner in self._runners:
            runner.start()

    def reroute(self, routes: Mapping[str, Route]) -> None:
        """Answer with the tasks and thresholds of another model. Exchange it in the engine in the same breath."""
        self._routes = self._readmission.routes = self._feeding.routes = routes

    def deliver(self, entries: list[Entry]) -> None:
        """Turn a batch of answers into results and send them.

        Whatever should still go wrong ends the process: records that nobody finishes would be waited for without end.
        """
        try:
            outcome, closed = self._deciding.outcome(entries)
            held = sum(entry.context.bytes for entry in entries)
        except Exception as error:  # noqa: BLE001
            self.outbox.fail(error)
            return
        if closed:
            self._done(closed)  # not answered and not finished: they will be delivered again
        if outcome.works:
            self._feeding.send(outcome, held)
        else:
            self._under_way.end(held)

    def take_back(self, entries: list[Entry]) -> None:
        """Pass records on anew: the model that encoded them does not answer, and another has taken its place."""
        self._feeding.take_back(entries)

    def _enter(self, records: int) -> None:
        self._busy += records
        if self._busy:
            self._idle.clear()
        else:
            self._idle.set()

    def _done(self, records: int) -> None:
        self._enter(-records)
        self._wake.set()
        self._reopen()

    def _reopen(self) -> None:
        if reopened := self._intake.reopened():
            self.on_reopened(reopened)

    # -- ends of an assignment ---------------------------------------------------------------------------------------

    async def drain(self, budget_s: float) -> bool:
        """Forget what waits (it will be delivered again) and wait for what is under way; False when time ran out.

        What handlers have not sent by then is never sent: somebody else may have its partition.
        """
        self._queue.clear()
        self._intake.clear()
        self.suspending.clear()
        self.retrying.clear()
        for runner in self._runners:
            runner.clear()
        self._engine.let_go()
        with suppress(TimeoutError):
            async with asyncio.timeout(budget_s):
                await self._idle.wait()
        self.suspending.clear()
        self.retrying.clear()
        for runner in self._runners:
            runner.end_assignment()
        return not self._busy

    async def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Notify handlers of the assigned partitions, and divide the bytes among the partitions."""
        self._intake.assign(partitions)
        for runner in self._runners:
            runner.assign(partitions)
