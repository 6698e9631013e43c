"""Passes records from the queue to the engine, except those that need no prediction."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.manifest import ModelManifest
from ..agent.routes import Route
from ..batching.engine_port import EngineLike
from ..batching.queues.entry import Entry, Sink
from ..batching.versions import LoadedVersion, Versions
from ..errors import Closed, DeviceFailed, RecordError, describe_origin
from ..observe.logs import get_logger
from ..observe.tracing import Tracing
from ..output.bounds import UnderWay
from ..output.delivery import Delivery, Rejected, coordinates
from ..output.outbox import Outbox
from ..output.outcome import Outcome
from ..output.suspending import Suspending
from .expiring import Expiring

log = get_logger(__name__)


class Feeding:
    """Passes records that have left the queue to the engine.

    Invariants:
    - every record is submitted to the engine, held for a suspended agent, or sent with an answer or dead letter;
    - nothing is computed for a record that is rejected, too old, or only for suspended agents.
    """

    def __init__(
        self,
        engine: EngineLike,
        outbox: Outbox,
        suspending: Suspending,
        expiring: Expiring,
        under_way: UnderWay,
        *,
        versions: Versions,
        sink: Sink,
        tracing: Tracing | None,
        on_enter: Callable[[int], None],
        on_done: Callable[[int], None],
    ) -> None:
        """`sink` receives the predictions. `on_enter` and `on_done` count records that start and end being in progress."""
        self._engine, self._outbox, self._suspending, self._expiring = engine, outbox, suspending, expiring
        self._under_way, self._sink, self._tracing = under_way, sink, tracing
        self._on_enter, self._on_done = on_enter, on_done
        self._versions = versions
        self._retakes = set[asyncio.Task[None]]()

    async def pass_on(self, items: Sequence[Delivery | Rejected]) -> None:
        """Send dead letters and `expired` answers of records, and submit the other records to the engine."""
        deliveries = [item for item in items if isinstance(item, Delivery)]
        if len(deliveries) < len(items):
            self._reject([item for item in items if isinstance(item, Rejected)])
        self._choose_sides(deliveries)
        deliveries = self._answer_expired(deliveries)
        if deliveries and self._suspending.suspended:
            deliveries, held = self._suspending.hold_whole(deliveries)
            self._under_way.end(sum(delivery.bytes for delivery in held))
            self._on_done(len(held))
        if deliveries:
            await self._divide_and_admit(deliveries)

    def _choose_sides(self, deliveries: Iterable[Delivery]) -> None:
        """Choose the side of each record before its parts go different ways."""
        if (assignment := self._versions.assignment) is not None:
            for delivery in deliveries:
                delivery.choose_side(assignment)

    def offer(self, entries: Sequence[Entry], outcome: Outcome, sending: "asyncio.Task[bool]") -> None:
        """Show a batch of one version to one that is only compared, once its messages are acknowledged.

        The entries must not be used after that. Until then they do not keep the version that answered them: a replaced one is freed
        also while the broker acknowledges nothing.
        """
        if self._versions.on_answered is not None:
            manifest: ModelManifest = entries[0].model.manifest
            for entry in entries:
                entry.model = None
            sending.add_done_callback(partial(self._show, entries, manifest, outcome))

    def _show(
        self, entries: Sequence[Entry], manifest: ModelManifest, outcome: Outcome, sending: "asyncio.Task[bool]"
    ) -> None:
        is_sent = not sending.cancelled() and sending.exception() is None and sending.result()
        if is_sent and self._versions.on_answered is not None:
            finished = {id(work) for work in outcome.works}
            answered = [entry for entry in entries if id(entry.context) in finished]
            if answered:
                self._versions.on_answered(answered, manifest, outcome.find_published())

    def take_back(self, entries: list[Entry]) -> None:
        """Submit records again: the version that encoded them failed or was unloaded, and another one answers them."""
        for entry in entries:
            if entry.error is not None:  # only a record that a candidate fails on comes back with it
                entry.context.current_only = True
        task = asyncio.get_running_loop().create_task(self.pass_on([entry.context for entry in entries]))
        self._retakes.add(task)
        task.add_done_callback(self._finish_retake)

    def _finish_retake(self, task: "asyncio.Task[None]") -> None:
        self._retakes.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._outbox.fail(error)

    def _answer_expired(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Send the `expired` answers; returns the deliveries about which an agent is still asked."""
        separated = self._expiring.separate(deliveries)
        if separated is None:
            return deliveries
        if separated.outcome.works:
            self._on_enter(len(separated.outcome.works) - len(separated.whole))
            self.send(separated.outcome, sum(delivery.bytes for delivery in separated.whole))
        return separated.asked

    def _divide(self, deliveries: list[Delivery]) -> Iterable[tuple[LoadedVersion, list[Delivery]]]:
        """Return deliveries by the version that answers them, with the tasks of its routes. Sends dead letters of others."""
        versions = self._versions
        assignment = versions.assignment
        if assignment is None:
            version = versions.current
            fit = [each for each in deliveries if self._reroute(each, version.routes)]
            return [(version, fit)] if fit else []
        parts: dict[int, tuple[LoadedVersion, list[Delivery]]] = {}
        for delivery in deliveries:
            version = versions.current
            if not delivery.current_only:
                version = versions.choose(delivery.choose_side(assignment))
            if version is not versions.current and not self._fits(delivery, version):
                version = versions.current  # what it does not answer is no reason for a dead letter
            if self._reroute(delivery, version.routes):
                parts.setdefault(id(version), (version, []))[1].append(delivery)
        return parts.values()

    @staticmethod
    def _fits(delivery: Delivery, version: LoadedVersion) -> bool:
        """Settle the tasks of a delivery by a candidate's routes; False where it cannot answer them."""
        try:
            delivery.settle(version.routes[delivery.record.topic])
        except RecordError:
            return False
        return True

    async def _admit(self, version: LoadedVersion, deliveries: list[Delivery]) -> None:
        """Tokenise and submit deliveries for a version; for others if it is replaced, dropped or fails meanwhile."""
        if not self._versions.has(version):
            await self._divide_and_admit(deliveries)
            return
        model = version.model if version is self._versions.candidate else self._engine.model
        try:
            texts = [delivery.given for delivery in deliveries]
            windows = [delivery.route.windows for delivery in deliveries]
            encoded = await self._engine.encode(texts, model, windows if any(windows) else None)
        except BaseException as error:  # a panic of the tokenizer is not an Exception
            if self._ends_process(version, error):
                self._leave(deliveries)
                raise
            await self._admit_failed(version, deliveries, error)
            return
        if not self._versions.has(version):
            await self._divide_and_admit(deliveries)
            return
        pairs = zip(deliveries, encoded, strict=True)
        entries = [
            Entry(each.given, each.tasks(), ids, self._sink, each, each.route.thresholds, model) for each, ids in pairs
        ]
        try:
            self._engine.submit(entries)
        except Closed:
            self._leave(deliveries)
            raise

    async def _divide_and_admit(self, deliveries: list[Delivery]) -> None:
        """Submit deliveries to the versions that answer them now."""
        await self._admit_parts([*self._divide(deliveries)])

    async def _admit_parts(self, parts: Sequence[tuple[LoadedVersion, list[Delivery]]]) -> None:
        """Admit parts one after the other; where one ends the process, those behind it are left, too."""
        for done, (version, part) in enumerate(parts, 1):
            try:
                await self._admit(version, part)
            except BaseException:
                self._leave([delivery for _, left in parts[done:] for delivery in left])
                raise

    def _leave(self, deliveries: Sequence[Delivery]) -> None:
        """End deliveries that are neither answered nor rejected, since the process ends: a drain does not wait for them."""
        self._under_way.end(sum(delivery.bytes for delivery in deliveries))
        self._on_done(len(deliveries))

    def _ends_process(self, version: LoadedVersion, error: BaseException) -> bool:
        """Return whether neither a text nor a candidate is at fault."""
        if isinstance(error, DeviceFailed):
            return self._versions.has(version)  # the engine has unloaded a candidate
        return isinstance(error, (Closed, asyncio.CancelledError, KeyboardInterrupt, SystemExit))

    async def _admit_failed(self, version: LoadedVersion, deliveries: list[Delivery], error: BaseException) -> None:
        """Admit texts that could not be tokenised together one by one; one alone is rejected unless a candidate failed."""
        if not self._versions.has(version):
            await self._divide_and_admit(deliveries)
        elif len(deliveries) > 1:
            await self._admit_parts([(version, [delivery]) for delivery in deliveries])
        elif version is self._versions.candidate:
            deliveries[0].current_only = True
            await self._divide_and_admit(deliveries)
        else:
            log.error("a text could not be tokenised", why=describe_origin(error), **coordinates(deliveries[0].record))
            self._reject_delivery(deliveries[0], RecordError(Reason.INVALID, "the text cannot be tokenised"))

    def _reroute(self, delivery: Delivery, routes: Mapping[str, Route]) -> bool:
        """Settle the tasks again if the model was exchanged; False when the record became a dead letter."""
        route = routes[delivery.record.topic]
        if delivery.route is route:
            return True
        try:
            delivery.settle(route)
        except RecordError as error:
            self._reject_delivery(delivery, error)
            return False
        return True

    def _reject(self, items: Iterable[Rejected]) -> None:
        outcome, held = Outcome(), 0
        for item in items:
            error = item.error
            self._outbox.reject(outcome, item, error)
            held += item.bytes
            if self._tracing is not None:
                outcome.trace(self._tracing.begin_refused(item.record, item.request), error)
        self.send(outcome, held)

    def _reject_delivery(self, delivery: Delivery, error: RecordError) -> None:
        outcome = Outcome()
        self._outbox.reject(outcome, delivery, error)
        outcome.trace(delivery.span, error)
        self.send(outcome, delivery.bytes)

    def send(self, outcome: Outcome, held: int) -> "asyncio.Task[bool]":
        """Send an outcome; `held` is the number of bytes that its records release when it is sent. The task: see `Outbox.send`."""
        sending = self._outbox.send(outcome)
        sending.add_done_callback(lambda task: self._under_way.end(held))
        return sending
