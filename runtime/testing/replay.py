"""Answering records of a topic once more, as serving would, without a group and without its outputs.

The records go through the dispatcher that serves, with a publisher that keeps the results: what is read, decided and built is
what serving would write.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.structs import ConsumerRecord, TopicPartition

from ..agent.agent import Agent
from ..agent.routes import make_routes
from ..batching.engine import Engine, EngineModel
from ..errors import DeliveryError, SetupError
from ..flow.dispatcher import Dispatcher
from ..kafka import offset_ranges
from ..kafka.offset_ranges import OffsetRange
from ..kafka.offset_tracker import Tracker
from ..observe.metrics import Metrics
from ..settings.settings import Settings
from ..wire.message import Message

CHUNK_RECORDS: Final = 1000
CHUNK_BYTES: Final = 2 * 1024 * 1024
"""Of values, given to the dispatcher at once; a chunk of one record may be larger."""
_WAIT_S: Final = 0.002
_PARTITIONS: Final = 2**31

Results = Callable[[Sequence[Message]], Awaitable[None]]


@dataclass(slots=True)
class Replayed:
    """What came of the records."""

    records: int = 0
    results: int = 0
    dead_letters: int = 0
    handed_on: int = 0
    """Records that agents would have published to other topics; they are not sent."""
    unreadable: int = 0
    earliest_ms: int = 0
    """The smallest timestamp of the records, in milliseconds since 1970; 0 without any."""


class _Kept:
    """A publisher that keeps results until they are taken, and counts everything else."""

    def __init__(self, outputs: frozenset[str], dead_letters: str, counts: Replayed) -> None:
        self.taking = asyncio.Event()
        self.taking.set()
        self.results: list[Message] = []
        self._outputs, self._dead_letters, self._counts = outputs, dead_letters, counts

    async def publish(self, messages: Sequence[Message]) -> list[DeliveryError | None]:
        for message in messages:
            if message.topic in self._outputs:
                self.results.append(message)
                self._counts.results += 1
            elif message.topic == self._dead_letters:
                self._counts.dead_letters += 1
            else:
                self._counts.handed_on += 1
        return [None] * len(messages)

    async def partitions(self, topic: str) -> int:
        return _PARTITIONS


class Replay:
    """One replay of ranges of one topic. Holds one fetch of records and the results of one chunk."""

    def __init__(self, settings: Settings, agents: Sequence[Agent], model: EngineModel, topic: str) -> None:
        """Raises SetupError when no agent reads the topic, or none of them can work with the model."""
        self._settings, self._model, self._topic = settings, model, topic
        self.agents = [agent for agent in agents if topic in agent.topics]
        if not self.agents:
            names = ", ".join(agent.name for agent in agents) or "none"
            raise SetupError(f"no agent that predicts reads {topic}; those that were named: {names}")
        self._routes = make_routes(self.agents, model.manifest, settings.app)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Topics in which serving publishes the results of these records."""
        return tuple(dict.fromkeys(agent.output for agent in self.agents if agent.output))

    async def run(
        self,
        ranges: Sequence[OffsetRange],
        on_results: Results,
        *,
        stop: asyncio.Event,
        progress: Callable[[int], None] = lambda records: None,
    ) -> Replayed:
        """Answer the records of the ranges; their results are given to `on_results`. Ends early when `stop` is set."""
        counts = Replayed()
        kept = _Kept(frozenset(self.outputs), self._settings.dead_letters, counts)
        engine = self._engine()
        await engine.start()
        try:
            dispatcher = self._dispatcher(engine, kept)
            await dispatcher.assign([TopicPartition(each.topic, each.partition) for each in ranges])
            feeding = asyncio.create_task(dispatcher.run())
            try:
                await self._read(ranges, _Feed(dispatcher, kept, on_results, stop), counts, progress)
            finally:
                feeding.cancel()
        finally:
            await engine.stop(1.0)
        return counts

    async def _read(
        self, ranges: Sequence[OffsetRange], feed: "_Feed", counts: Replayed, progress: Callable[[int], None]
    ) -> None:
        waiting: list[ConsumerRecord] = []

        def take(number: int, records: list[ConsumerRecord]) -> None:
            first = min(record.timestamp for record in records)
            counts.earliest_ms = min(counts.earliest_ms, first) if counts.records else first
            counts.records += len(records)
            waiting.extend(records)

        def unreadable(number: int, offset: int) -> None:
            counts.unreadable += 1

        async def work_off() -> None:
            records = waiting.copy()
            waiting.clear()
            await feed.answer(records)

        try:
            await offset_ranges.read(
                self._settings.kafka, ranges, take, unreadable=unreadable, progress=progress, after_fetch=work_off
            )
        except _Stopped:
            return

    def _engine(self) -> Engine:
        given = self._settings.model
        return Engine(
            self._model,
            max_in_flight=given.cores if self._model.device == "cpu" else None,
            max_rows=given.max_rows,
            token_budget=given.token_budget,
            max_wait_ms=given.max_wait_ms,
            padded=given.graph == "padded",
            shortest_deadline_s=given.run_deadline_s,
        )

    def _dispatcher(self, engine: Engine, kept: _Kept) -> Dispatcher:
        settings = self._settings
        return Dispatcher(
            engine,
            kept,
            Tracker(),
            Metrics(),
            routes=self._routes,
            dead_letters=settings.dead_letters,
            max_value_bytes=settings.limits.max_value_bytes,
            max_hops=settings.limits.max_hops,
            fields=settings.fields,
            queue_budgets=settings.queue_budgets,
            clock=None,  # it answers old records on purpose
        )


class _Stopped(Exception):
    """Raised through the reader to end it early."""


class _Feed:
    """Gives records to a dispatcher in chunks, and waits until each has been answered."""

    def __init__(self, dispatcher: Dispatcher, kept: _Kept, on_results: Results, stop: asyncio.Event) -> None:
        self._dispatcher, self._kept, self._on_results, self._stop = dispatcher, kept, on_results, stop

    async def answer(self, records: Sequence[ConsumerRecord]) -> None:
        for chunk in _chunks(records):
            if self._stop.is_set():
                raise _Stopped
            left = chunk
            while left:
                left = self._receive(left)
                await self._until_answered()
            results, self._kept.results = self._kept.results, []
            if results:
                await self._on_results(results)

    def _receive(self, records: Sequence[ConsumerRecord]) -> list[ConsumerRecord]:
        """Return the records that the dispatcher gave back, for the next time."""
        batches: dict[TopicPartition, list[ConsumerRecord]] = {}
        for record in records:
            batches.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
        full: Mapping[TopicPartition, int | None] = self._dispatcher.receive(batches)
        return [
            record
            for partition, given in batches.items()
            if (first := full.get(partition)) is not None
            for record in given
            if record.offset >= first
        ]

    async def _until_answered(self) -> None:
        while self._dispatcher.has_work:
            if self._dispatcher.outbox.failure.done():
                self._dispatcher.outbox.failure.result()
            await asyncio.sleep(_WAIT_S)


def _chunks(records: Sequence[Any]) -> list[list[Any]]:
    chunks: list[list[Any]] = []
    size = CHUNK_BYTES
    for record in records:
        length = len(record.value or b"")
        if size + length > CHUNK_BYTES or len(chunks[-1]) >= CHUNK_RECORDS:
            chunks.append([])
            size = 0
        chunks[-1].append(record)
        size += length
    return chunks
