"""Answers records of a topic again, without a group and without publishing.

The records go through the same dispatcher as in service, with a publisher that keeps the results.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.structs import ConsumerRecord, TopicPartition

from ..agent.agent import Agent
from ..agent.routes import make_routes
from ..batching.callers.request_checks import EngineModel
from ..batching.engine import Engine
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
"""Maximum size of the values of a chunk; a chunk of one record may be larger."""
_WAIT_S: Final = 0.002
_PARTITIONS: Final = 2**31

Results = Callable[[Sequence[Message]], Awaitable[None]]


@dataclass(slots=True)
class Replayed:
    """Counts of the replayed records and their answers."""

    records: int = 0
    results: int = 0
    dead_letters: int = 0
    handed_on: int = 0
    """Number of messages to other topics, which are not sent."""
    unreadable: int = 0
    earliest_ms: int = 0
    """The smallest timestamp of the records, in milliseconds since 1970; 0 without any."""


class _ResultCollector:
    """A publisher that collects results until they are taken, and counts all other messages."""

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
    """A replay of ranges of one topic. Keeps one fetch of records and the results of one chunk in memory."""

    def __init__(self, settings: Settings, agents: Sequence[Agent], model: EngineModel, topic: str) -> None:
        """Raises SetupError when no agent reads the topic, or none of them can work with the model."""
        self._settings, self._model, self._topic = settings, model, topic
        self.agents = [agent for agent in agents if topic in agent.topics]
        if not self.agents:
            names = ", ".join(agent.name for agent in agents) or "none"
            raise SetupError(f"none of the agents ({names}) reads {topic} and predicts")
        self._routes = make_routes(self.agents, model.manifest, settings.app)

    @property
    def name(self) -> str:
        """Name and version of the model."""
        return f"{self._model.manifest.name} {self._model.manifest.version}"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Topics to which serving publishes the results of these records."""
        return tuple(dict.fromkeys(agent.output for agent in self.agents if agent.output))

    async def run(
        self,
        ranges: Sequence[OffsetRange],
        on_results: Results,
        *,
        stop: asyncio.Event,
        progress: Callable[[int], None] = lambda records: None,
    ) -> Replayed:
        """Answer the records of the ranges and pass the results to `on_results`. Ends early when `stop` is set."""
        counts = Replayed()
        collector = _ResultCollector(frozenset(self.outputs), self._settings.dead_letters, counts)
        engine = self._make_engine()
        await engine.start()
        try:
            dispatcher = self._make_dispatcher(engine, collector)
            await dispatcher.assign([TopicPartition(each.topic, each.partition) for each in ranges])
            feeding = asyncio.create_task(dispatcher.run())
            try:
                await self._read(ranges, _Feed(dispatcher, collector, on_results, stop), counts, progress)
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

        async def answer_waiting() -> None:
            records = waiting.copy()
            waiting.clear()
            await feed.answer(records)

        try:
            await offset_ranges.read(
                self._settings.kafka, ranges, take, unreadable=unreadable, progress=progress, after_fetch=answer_waiting
            )
        except _Stopped:
            return

    def _make_engine(self) -> Engine:
        model_settings = self._settings.model
        return Engine(
            self._model,
            max_in_flight=model_settings.cores if self._model.device == "cpu" else None,
            max_rows=model_settings.max_rows,
            token_budget=model_settings.token_budget,
            max_wait_ms=model_settings.max_wait_ms,
            padded=model_settings.graph == "padded",
            shortest_deadline_s=model_settings.run_deadline_s,
        )

    def _make_dispatcher(self, engine: Engine, collector: _ResultCollector) -> Dispatcher:
        settings = self._settings
        return Dispatcher(
            engine,
            collector,
            Tracker(),
            Metrics(),
            routes=self._routes,
            dead_letters=settings.dead_letters,
            max_value_bytes=settings.limits.max_value_bytes,
            max_hops=settings.limits.max_hops,
            fields=settings.fields,
            queue_budgets=settings.queue_budgets,
            clock=None,  # old records are answered, not expired
        )


class _Stopped(Exception):
    """Raised through the reader to end it early."""


class _Feed:
    """Passes records to a dispatcher in chunks, and waits until each chunk has been answered."""

    def __init__(
        self, dispatcher: Dispatcher, collector: _ResultCollector, on_results: Results, stop: asyncio.Event
    ) -> None:
        self._dispatcher, self._collector, self._on_results, self._stop = dispatcher, collector, on_results, stop

    async def answer(self, records: Sequence[ConsumerRecord]) -> None:
        for chunk in _split_chunks(records):
            if self._stop.is_set():
                raise _Stopped
            left = chunk
            while left:
                left = self._receive(left)
                await self._wait_until_answered()
            results, self._collector.results = self._collector.results, []
            if results:
                await self._on_results(results)

    def _receive(self, records: Sequence[ConsumerRecord]) -> list[ConsumerRecord]:
        """Deliver records; returns those that the dispatcher did not take, for the next call."""
        batches: dict[TopicPartition, list[ConsumerRecord]] = {}
        for record in records:
            batches.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
        full: Mapping[TopicPartition, int | None] = self._dispatcher.receive(batches)
        return [
            record
            for partition, batch in batches.items()
            if (first := full.get(partition)) is not None
            for record in batch
            if record.offset >= first
        ]

    async def _wait_until_answered(self) -> None:
        while self._dispatcher.has_work:
            if self._dispatcher.outbox.failure.done():
                self._dispatcher.outbox.failure.result()
            await asyncio.sleep(_WAIT_S)


def _split_chunks(records: Sequence[Any]) -> list[list[Any]]:
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
