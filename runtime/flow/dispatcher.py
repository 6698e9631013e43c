"""The path of a record through the process: decode, admit, predict, decide, publish, finish.

Works on chunks and batches: nothing is awaited per record.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from aiokafka.structs import TopicPartition

from ..agent.handler import Handler
from ..agent.routes import Route
from ..batching.engine_port import EngineLike
from ..batching.queues.entry import Entry
from ..batching.versions import ServedModel, Versions
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
from .handlers.handler_runner import HandlerRunner
from .intake import Batches, Full, Intake, Queue
from .model_feedings import ModelFeedings
from .readmission import Readmission
from .retries.retrying import Retrying
from .version_counts import count_failed


class Dispatcher:
    """Owns every record between its delivery and its commit.

    Invariants:
    - a failure of one record or one agent does not affect the others;
    - no version has more than the engine's `lookahead` admitted to its queue, and nothing while as much is still being sent: records wait
      in `Admission`, which decides their order;
    - nothing is admitted while the records in progress use their share of the process's bytes;
    - nothing is admitted while the publisher cannot send.
    """

    def __init__(
        self,
        engine: EngineLike,
        publisher: PublisherLike,
        tracker: Tracker[TopicPartition],
        metrics: Metrics,
        *,
        routes: Mapping[str, Route],
        name: str = "",
        others: Sequence[ServedModel] = (),
        handler_models: Mapping[str, str] | None = None,
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
        """`engine` and `routes`: of the first model, and `name`; `others`: further ones, on the same device. `handler_models`: the
        name of a handler's model, if it is not the first. `aligned` returns the pairs (topic of requests, topic of results) whose results keep the partition number.

        `queue_budgets`: waiting tokens at which a partition is full, in token budgets of the engine. `clock`: seconds since
        1970, for the age of requests; None: no request is too old.
        """
        bounds, self._tracing = bounds or Bounds(), tracing
        self._metrics = metrics
        self.served = [ServedModel(engine, routes, name), *others]
        """The models of the process."""
        self._turns = [*self.served]
        """The same; the one fed last is the last, so that of the shared bytes what becomes free goes round."""
        routes = self._merge_routes()
        self._wake, self._idle, self._busy = asyncio.Event(), asyncio.Event(), 0
        self._idle.set()
        self._routes, self._chunk_rows = routes, chunk_rows
        self.suspending = suspending or Suspending.from_settings(routes, handlers)
        self.retrying = retrying or Retrying({}, app="", topic=None)
        self.outbox = Outbox(
            publisher,
            metrics,
            dead_letters=dead_letters,
            make_letter=make_letter,
            gate=gate,
            suspending=self.suspending,
            declared_topics=[
                *self.suspending.declared_topics,
                *self.retrying.topics,
                *([reviews.topic] if reviews else ()),
            ],
            on_done=self._finish,
        )
        self._deciding = Deciding(
            self.outbox, metrics, aligned=aligned, reviews=reviews, suspending=self.suspending, retrying=self.retrying
        )
        self._under_way = UnderWay(bounds.under_way_bytes)
        self._feedings = ModelFeedings(
            self.served,
            lambda served: Feeding(
                served.engine,
                self.outbox,
                self.suspending,
                Expiring(self.suspending, model=served.version, aligned=aligned, clock=clock),
                self._under_way,
                versions=served.versions,
                sink=self,
                tracing=tracing,
                on_enter=self._enter,
                on_done=self._finish,
            ),
        )
        self._runners = [
            HandlerRunner(
                handler,
                self._find_served((handler_models or {}).get(handler.name, "")).engine,
                self.outbox,
                under_way=self._under_way,
                on_enter=self._enter,
                on_truncated=metrics.truncated,
                max_value_bytes=max_value_bytes,
                max_hops=max_hops,
                tracing=tracing,
                suspending=self.suspending,
                retrying=self.retrying,
                fields=fields,
            )
            for handler in handlers
        ]
        self._runner_of = {topic: runner for runner in self._runners for topic in runner.handler.topics}
        metrics.expect_dead_letters(self.suspending.agents)
        metrics.expect_expired(bound.agent.name for route in routes.values() for bound in route.agents)
        metrics.watch(suspended=self.suspending.readings)
        budgets = [served.engine.token_budget for served in self.served]
        self._queue: Queue = Admission(
            quantum=max(1, min(budgets) // 4),
            lane_limit=int(max(budgets) * queue_budgets),
            groups=self._feedings.groups,
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
            blocks=lambda partition: self.suspending.readers.blocks(partition) or self.retrying.blocks(partition),
            held_bytes=self._held_bytes,
        )
        self._readmission = Readmission(
            self._intake,
            self.outbox,
            routes=routes,
            runners=self._runner_of,
            on_enter=self._enter,
            on_wake=self._wake.set,
            on_resume=self._resume,
        )
        self.suspending.releases = self.retrying.target = self._readmission
        self.suspending.overflow = self.retrying.overflow
        self.on_reopened: Callable[[list[TopicPartition]], None] = lambda partitions: None
        """Called with partitions that were full and now have room."""
        self._under_way.on_free = self._resume
        self.outbox.gate.on_open = self._start_waiting
        for served in self.served:
            served.on_reroute = self._take_routes
            served.versions.has_waiting = lambda: self._queue.tokens > 0
        engine.on_room(self._wake.set)

    @property
    def versions(self) -> Versions:
        """The loaded versions of the first model."""
        return self.served[0].versions

    def _find_served(self, name: str) -> ServedModel:
        return next(served for served in self.served if served.name == name or not name)

    def _merge_routes(self) -> dict[str, Route]:
        return {topic: route for served in self.served for topic, route in served.versions.current.routes.items()}

    def _take_routes(self) -> None:
        self._routes = self._readmission.routes = self._merge_routes()

    @property
    def has_work(self) -> bool:
        return bool(self._queue.tokens or self._busy or any(runner.waiting for runner in self._runners))

    def idle_records(self, partition: TopicPartition) -> int | None:
        """Return how many records of a partition wait on purpose: for suspended agents only, or for a handler's next attempt.

        None: all of them, since no agent of its topic answers.
        """
        idle = self.suspending.readers.idle_records(partition)
        runner = self._runner_of.get(partition.topic)
        return idle if idle is None or runner is None else runner.count_pausing(partition)

    def receive(self, batches: Batches) -> Full:
        """Queue fetched records; returns the partitions to pause, and where to continue fetching them."""
        full = self._intake.take(batches, self._routes)
        self._wake.set()
        return full

    def dead_letter_unreadable(self, partition: TopicPartition, offset: int, why: str) -> bool:
        """Dead-letter a record that the client could not unpack; True when its partition is now full."""
        full = self._intake.reject_unreadable(partition, offset, why)
        self._wake.set()
        return full

    def begin_new_log(self, partition: TopicPartition) -> None:
        """Reset a partition that has a new log. Records that wait from the earlier log are still answered."""
        self._intake.begin_new_log(partition)
        self._reopen()

    async def run(self) -> None:
        """Feed the engine until cancelled. Raises errors that no record has caused."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue.tokens:
                await self.outbox.open()
                if not [served for served in [*self._turns] if await self._feed(served)]:
                    break

    async def _feed(self, served: ServedModel) -> bool:
        """Pass waiting records to a model that has room; False where nothing was passed."""
        tokens, rows = served.engine.room
        if tokens <= 0 or rows <= 0 or self.outbox.pending >= served.engine.lookahead[1]:
            return False
        waiting, most = self._queue.bytes, min(rows, self._chunk_rows)
        items = self._queue.take(tokens, most, self._under_way.bytes_left, self._feedings.group(served))
        if not items:
            return False
        self._turns.remove(served)
        self._turns.append(served)
        self._enter(len(items))
        self._under_way.begin(waiting - self._queue.bytes)
        self._reopen()
        await self._feedings.pass_on(served, items)
        return True

    def _resume(self) -> None:
        self._reopen()
        self._start_waiting()

    def _start_waiting(self) -> None:
        self._wake.set()
        for runner in self._runners:
            runner.start()

    def reroute(self, routes: Mapping[str, Route]) -> None:
        """Use other routes of the first model; see `ServedModel.reroute`."""
        self.served[0].reroute(routes)

    def deliver(self, entries: list[Entry]) -> None:
        """Turn a batch of predictions into messages and send them.

        An unexpected error ends the process: its records would otherwise never be finished.
        """
        try:
            outcome, unfinished = self._deciding.decide(entries)
            held = sum(entry.context.bytes for entry in entries)
        except Exception as error:  # noqa: BLE001
            self.outbox.fail(error)
            return
        if unfinished:
            self._finish(unfinished)  # closed or held: no longer in progress
        if outcome.works:
            self._feedings.offer(entries, outcome, self._feedings.send(outcome, held))
        else:
            self._under_way.end(held)

    def take_back(self, entries: list[Entry]) -> None:
        """Submit records again: the model that encoded them failed and has been replaced."""
        count_failed(self._metrics.versions, entries)
        self._feedings.take_back(entries)

    def _held_bytes(self, partition: TopicPartition) -> int:
        """Return the bytes of the records of a partition that wait outside of the queue."""
        held = self.suspending.held_bytes(partition) + self.retrying.held_bytes(partition)
        if partition.topic in self.retrying.topics:
            held += sum(runner.held_bytes(partition) for runner in self._runners)
        return held

    def _enter(self, records: int) -> None:
        self._busy += records
        if self._busy:
            self._idle.clear()
        else:
            self._idle.set()

    def _finish(self, records: int) -> None:
        self._enter(-records)
        self._wake.set()
        self._reopen()

    def _reopen(self) -> None:
        if reopened := self._intake.pop_reopened():
            self.on_reopened(reopened)

    # -- ends of an assignment ---------------------------------------------------------------------------------------

    async def drain(self, budget_s: float) -> bool:
        """Drop waiting records (they will be delivered again) and wait for those in progress; False after `budget_s`.

        Handlers' messages that are not sent by then are never sent: another process may own their partition.
        """
        self._queue.clear()
        self._intake.clear()
        self.suspending.clear()
        self.retrying.clear()
        for runner in self._runners:
            runner.clear()
        self.served[0].engine.close_waiting()
        with suppress(TimeoutError):
            async with asyncio.timeout(budget_s):
                await self._idle.wait()
        self.suspending.clear()
        self.retrying.clear()
        for runner in self._runners:
            runner.end_assignment()
        return not self._busy

    async def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Divide the bytes among the assigned partitions, and prepare handlers for them."""
        self._intake.assign(partitions)
        for runner in self._runners:
            runner.assign(partitions)
