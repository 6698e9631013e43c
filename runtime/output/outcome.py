"""The outcome of some records: the messages about them, and the progress objects to finish."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import NamedTuple, Protocol

from aiokafka.structs import ConsumerRecord

from ..errors import Closed, RecordError
from ..kafka.offset_tracker import CompletionSink
from ..observe.metrics import Metrics
from ..observe.tracing import Span
from ..observe.version_metrics import VersionLabels
from ..wire.message import Message


class Work(Protocol):
    """A delivered record that an outcome finishes."""

    @property
    def record(self) -> ConsumerRecord: ...
    @property
    def progress(self) -> CompletionSink: ...
    @property
    def attempts(self) -> int:
        """The number of attempts, including this one."""


class UnparsedWork(NamedTuple):
    """A delivered record without a parsed request."""

    record: ConsumerRecord
    progress: CompletionSink
    attempts: int = 1


class Outgoing(NamedTuple):
    """A message to send, with its record and agent."""

    message: Message
    record: ConsumerRecord
    agent: str | None
    essential: bool = False
    """No dead letter replaces it: when it is refused, the record is not finished and the process ends."""
    best_effort: bool = False
    """It is dropped and counted when it is refused."""
    any_partition: bool = False
    """Its partition number is a preference: where that partition does not exist, the key decides."""

    first: bool = False
    """It is sent before the others of its outcome, which wait for its acknowledgement."""

    def to_partition(self, partition: int | None) -> "Outgoing":
        """Return a copy for another partition; None: the key decides."""
        return self._replace(message=self.message._replace(partition=partition))


class Outcome:
    """The messages and records of one batch or handler call. Fill it, then give it to the outbox."""

    __slots__ = (
        "_replaced",
        "answered",
        "attempts_made",
        "expired",
        "may_send",
        "sending",
        "silent",
        "spans",
        "version",
        "while_waiting",
        "works",
    )

    def __init__(self, version: VersionLabels | None = None) -> None:
        """`version`: the one that answered; None where that is no matter."""
        self.version = version
        self.sending: list[Outgoing] = []
        self.attempts_made: dict[int, int] = {}
        """Attempts by the `id()` of a record that is not in `works` yet."""
        self.works: list[Work] = []
        self.answered: dict[tuple[str, str], list[ConsumerRecord]] = {}
        """By (agent, topic): the records that it answered."""
        self.silent: dict[tuple[str, str], list[ConsumerRecord]] = {}
        """By (agent, topic): the records for which it published no result."""
        self.expired: dict[tuple[str, str, str], list[ConsumerRecord]] = {}
        """By (agent, topic, limit): the records that were too old for it."""
        self.spans: list[Span] = []
        """Spans of the traced records; ended when all messages have been acknowledged."""
        self.may_send: Callable[[], Awaitable[bool]] | None = None
        """Called before a delayed send: whether the partition is still assigned to this process. None: it is."""
        self.while_waiting: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        """Entered while the outcome waits for a suspended handler: its records hold nothing that others need."""
        self._replaced: set[tuple[int, str | None]] = set()

    async def check_ownership(self) -> None:
        """Raise Closed when the partition is no longer assigned to this process."""
        if self.may_send is not None and not await self.may_send():
            raise Closed("its partition was given up")

    async def parts(self) -> AsyncIterator[list[Outgoing]]:
        """Yield the messages to send, those first that others wait for. Raises Closed before the others when the partition
        is no longer assigned to this process: the next one sends them.
        """
        first = [each for each in self.sending if each.first]
        if first:
            yield first
            await self.check_ownership()
        if len(first) < len(self.sending):
            yield [each for each in self.sending if not each.first]

    def trace(self, span: Span | None, failed: RecordError | None = None) -> None:
        """Add a record's span, if it has one, to those that end with this outcome."""
        if span is not None:
            self.spans.append(span)
            if failed is not None:
                span.failed(failed.reason)

    def add(self, outgoing: Outgoing) -> None:
        self.sending.append(outgoing)

    def take_back(self, record: ConsumerRecord, agent: str | None) -> bool:
        """Count an agent's part of a record as not answered; False when that was done before."""
        part = (id(record), agent)
        if part in self._replaced:
            return False
        self._replaced.add(part)
        for counted in (self.answered, self.silent, self.expired):
            for key, records in counted.items():
                if key[0] == agent:
                    records[:] = [other for other in records if other is not record]
        return True

    def find_published(self) -> set[tuple[str, int]]:
        """Return the agents that answered, each with the `id()` of a record."""
        return {(agent, id(record)) for (agent, _), records in self.answered.items() for record in records}

    def count(self, metrics: Metrics) -> None:
        """Count what came of the records, once everything has been acknowledged."""
        now_ms = time.time() * 1000
        for (agent, topic), records in self.answered.items():
            if records:
                seconds = [(now_ms - record.timestamp) / 1000 for record in records]
                metrics.answered(agent, topic, seconds)
                if self.version is not None:
                    metrics.versions.answered(self.version, seconds)
        for (agent, topic), records in self.silent.items():
            if records:
                metrics.silent(agent, topic, len(records))
        for (agent, topic, limit), records in self.expired.items():
            if records:
                metrics.answered_expired(agent, topic, limit, len(records))

    def attempts(self, record: ConsumerRecord) -> int:
        """Return the number of attempts at a record; 1 where it is not known."""
        known = (work.attempts for work in self.works if work.record is record)
        return self.attempts_made.get(id(record)) or next(known, 1)

    def fail(self, record: ConsumerRecord, error: RecordError) -> None:
        """Mark the span of a record, if it has one, as failed."""
        for span in self.spans:
            if span.record is record:
                span.failed(error.reason)
