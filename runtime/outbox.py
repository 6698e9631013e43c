"""What is to be sent for records, and what is noted once the broker has it."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from aiokafka.structs import ConsumerRecord

from ..schemas.deadletter import DeadLetterReason as Reason
from .deadletters import Message, cut, dead_letter
from .errors import Closed, DeliveryError, RecordError
from .logs import get_logger
from .telemetry import Metrics
from .tracing import Span
from .tracker import Progress

log = get_logger(__name__)

Owner = tuple[ConsumerRecord, str | None]
"""The record that a message is about, and the agent whose message it is."""


class PublisherLike(Protocol):
    """What the outbox needs of the publisher."""

    taking: asyncio.Event

    async def publish(self, messages: Sequence[Message]) -> list[DeliveryError | None]: ...
    async def has_topic(self, topic: str) -> bool: ...


class Outcome:
    """The messages about some records, and where to note that these are finished. Filled, then given to the outbox."""

    __slots__ = ("answered", "messages", "owners", "spans", "works")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.owners: list[Owner] = []
        """One for each message."""
        self.works: list[tuple[ConsumerRecord, Progress]] = []
        self.answered: dict[tuple[str, str], list[int]] = {}
        """(agent, topic) to the timestamps (ms) of the requests that it answered."""

        self.spans: list[Span] = []
        """Of the traced ones; ended when everything has been acknowledged."""

    def trace(self, span: Span | None, failed: RecordError | None = None) -> None:
        """End a record's span, if it has one, together with the others."""
        if span is not None:
            self.spans.append(span)
            if failed is not None:
                span.failed(failed.reason)

    def add(self, message: Message, record: ConsumerRecord, agent: str | None) -> None:
        self.messages.append(message)
        self.owners.append((record, agent))


class Outbox:
    """Sends outcomes, each in a task of its own, and finishes their records when the broker has acknowledged them.

    Invariants:
    - a record is finished only when every message about it has been acknowledged;
    - a message that the broker will never take is replaced: a result by a dead letter, a dead letter by a cut one;
    - what cannot even be dead-lettered sets `failure`: the process has to stop, because nothing may be skipped.
    """

    def __init__(
        self,
        publisher: PublisherLike,
        metrics: Metrics,
        *,
        dead_letters: str,
        known_topics: Iterable[str],
        on_done: Callable[[int], None],
    ) -> None:
        """`on_done` is told how many records have left, finished or not."""
        self._publisher = publisher
        self._metrics = metrics
        self._dead_letters = dead_letters
        self._known_topics = {dead_letters, *known_topics}
        self._on_done = on_done
        self._tasks: set[asyncio.Task[None]] = set()
        self.last_progress = time.monotonic()
        """When a record was last finished (monotonic, s)."""
        self.pending = 0
        """Records whose messages are on their way."""
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        """End the process with this error; the first one counts."""
        if not self.failure.done():
            self.failure.set_exception(error)

    async def open(self) -> None:
        """Wait until the broker takes what is sent."""
        await self._publisher.taking.wait()

    def reject(self, outcome: Outcome, record: ConsumerRecord, progress: Progress, error: RecordError) -> None:
        """Add a record that nobody answers: its dead letter is all that comes of it."""
        outcome.works.append((record, progress))
        self.dead_letter(outcome, record, error, None)

    def dead_letter(
        self, outcome: Outcome, record: ConsumerRecord, error: RecordError, agent: str | None, span: Span | None = None
    ) -> None:
        """Add the dead letter of a record, or of one agent's part in it; its span, where it has one, says so too."""
        if span is not None:
            span.failed(error.reason)
        outcome.add(self._letter(record, error, agent), record, agent)

    def send(self, outcome: Outcome) -> "asyncio.Task[None]":
        """Send an outcome in the background; the task ends when its records have left, finished or not."""
        self.pending += len(outcome.works)
        task = asyncio.get_running_loop().create_task(self._send(outcome))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send(self, outcome: Outcome) -> None:
        try:
            await self._publish(outcome)
        except Closed:
            return
        except Exception as error:
            log.exception("a record can be neither answered nor dead-lettered")
            self.fail(error)
            return
        else:
            for record, progress in outcome.works:
                progress.finish(record.offset)
            for span in outcome.spans:
                span.end()
            self.last_progress = time.monotonic()
            self._count(outcome)
        finally:
            self.pending -= len(outcome.works)
            self._on_done(len(outcome.works))

    async def _publish(self, outcome: Outcome) -> None:
        messages, owners = outcome.messages, outcome.owners
        if not self._known_topics.issuperset(message.topic for message in messages):
            messages = [await self._checked(*pair) for pair in zip(messages, owners, strict=True)]
        while messages:
            decided = await self._publisher.publish(messages)
            refused = [
                (self._smaller(message, owner, error), owner)
                for message, owner, error in zip(messages, owners, decided, strict=True)
                if error is not None
            ]
            messages, owners = [message for message, _ in refused], [owner for _, owner in refused]

    def _smaller(self, message: Message, owner: Owner, error: DeliveryError) -> Message:
        """Return what takes the place of a message that the broker will never take; raises when nothing is left."""
        record, agent = owner
        if message.topic != self._dead_letters:
            too_large = RecordError(Reason.TOO_LARGE, f"what was published is larger than {message.topic} allows")
            return self._letter(record, too_large, agent)
        smaller = cut(message)
        if smaller == message:
            raise error
        return smaller

    async def _checked(self, message: Message, owner: Owner) -> Message:
        """Return the message, or a dead letter when an agent publishes to a topic that is not there."""
        if message.topic in self._known_topics or await self._publisher.has_topic(message.topic):
            self._known_topics.add(message.topic)
            return message
        record, agent = owner
        why = RecordError(Reason.AGENT_FAILED, f"{agent} published to topic {message.topic}, which is not there")
        return self._letter(record, why, agent)

    def _letter(self, record: ConsumerRecord, error: RecordError, agent: str | None) -> Message:
        self._metrics.dead_letter(agent, record.topic, error.reason)
        return dead_letter(record, error, self._dead_letters, agent=agent)

    def _count(self, outcome: Outcome) -> None:
        now_ms = time.time() * 1000
        for (agent, topic), stamps in outcome.answered.items():
            self._metrics.answered(agent, topic, [(now_ms - stamp) / 1000 for stamp in stamps])
