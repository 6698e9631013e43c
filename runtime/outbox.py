"""What is to be sent for records, and what is noted once the broker has it."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from aiokafka.structs import ConsumerRecord

from ..schemas.deadletter import DeadLetterReason as Reason
from .deadletters import MakeLetter, Message, cut, dead_letter
from .errors import Closed, DeliveryError, MurmuraError, RecordError, RecordTooLarge
from .logs import get_logger
from .telemetry import Metrics
from .tracing import Span

log = get_logger(__name__)


Owner = tuple[ConsumerRecord, str | None, bool]
"""The record that a message is about, the agent whose message it is, and whether it is essential: then no dead letter takes
its place, and when it is refused, the record is not finished and the process ends. A plain tuple: one is made a message."""


class NotesFinished(Protocol):
    """Where to note that a delivered record is finished: `tracker.Progress` of its partition."""

    def finish(self, offset: int) -> None: ...


class PublisherLike(Protocol):
    """What the outbox needs of the publisher."""

    taking: asyncio.Event

    async def publish(self, messages: Sequence[Message]) -> list[DeliveryError | None]: ...

    async def partitions(self, topic: str) -> int:
        """0: there is no such topic. Waits for a broker that does not say."""
        ...


class Outcome:
    """The messages about some records, and where to note that these are finished. Filled, then given to the outbox."""

    __slots__ = ("answered", "messages", "owners", "spans", "works")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.owners: list[Owner] = []
        """One for each message."""
        self.works: list[tuple[ConsumerRecord, NotesFinished]] = []
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

    def failed(self, record: ConsumerRecord, error: RecordError) -> None:
        """Mark the span of a record, if it has one, as one that ended with a dead letter."""
        for span in self.spans:
            if span.record is record:
                span.failed(error.reason)

    def add(self, message: Message, record: ConsumerRecord, agent: str | None, *, essential: bool = False) -> None:
        self.messages.append(message)
        self.owners.append((record, agent, essential))


class Outbox:
    """Sends outcomes, each in a task of its own, and finishes their records when the broker has acknowledged them.

    Invariants:
    - a record is finished only when every message about it has been acknowledged;
    - a message that the broker will never take is replaced: a result by a dead letter, a dead letter by a cut one;
    - what cannot even be dead-lettered, or is essential and refused, sets `failure`: the process has to stop, because
      nothing may be skipped.
    """

    def __init__(
        self,
        publisher: PublisherLike,
        metrics: Metrics,
        *,
        dead_letters: str,
        make_letter: MakeLetter = dead_letter,
        known_topics: Iterable[str],
        on_done: Callable[[int], None],
    ) -> None:
        """`on_done` is told how many records have left, finished or not."""
        self._publisher = publisher
        self._metrics = metrics
        self._dead_letters, self._make_letter = dead_letters, make_letter
        self._known: set[tuple[str, int | None]] = {(topic, None) for topic in (dead_letters, *known_topics)}
        """Topics, and partitions of theirs, that were there when they were first asked for."""
        self._on_done = on_done
        self._tasks: set[asyncio.Task[bool] | asyncio.Task[None]] = set()
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

    def reject(self, outcome: Outcome, record: ConsumerRecord, progress: NotesFinished, error: RecordError) -> None:
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

    def send(self, outcome: Outcome) -> "asyncio.Task[bool]":
        """Send an outcome in the background; the task returns whether its records are finished, once they have left."""
        self.pending += len(outcome.works)
        task = asyncio.get_running_loop().create_task(self._send(outcome))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def put(self, messages: Sequence[Message]) -> "asyncio.Task[None]":
        """Send what is about no record, in the background; the task raises when the broker will never take one of them.

        A task, because a publisher must not be cancelled: whoever stops waiting leaves it to its end.
        """
        task = asyncio.get_running_loop().create_task(self._put(messages))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _put(self, messages: Sequence[Message]) -> None:
        for message, error in zip(messages, await self._publisher.publish(messages), strict=True):
            if error is not None:
                what = f"topic {message.topic} takes no record of {len(message.value or b'')} bytes"
                raise _indispensable(what) from error

    async def _send(self, outcome: Outcome) -> bool:
        try:
            await self._publish(outcome)
        except Closed:
            return False
        except Exception as error:
            log.exception("a record can be neither answered nor dead-lettered")
            self.fail(error)
            return False
        else:
            for record, progress in outcome.works:
                progress.finish(record.offset)
            for span in outcome.spans:
                span.end()
            self.last_progress = time.monotonic()
            self._count(outcome)
            return True
        finally:
            self.pending -= len(outcome.works)
            self._on_done(len(outcome.works))

    async def _publish(self, outcome: Outcome) -> None:
        messages, owners = outcome.messages, outcome.owners
        if not self._known.issuperset((message.topic, message.partition) for message in messages):
            messages = [await self._checked(outcome, *pair) for pair in zip(messages, owners, strict=True)]
        while messages:
            try:
                decided = await self._publisher.publish(messages)
            except Closed:
                raise
            except Exception:  # noqa: BLE001 - it was not the broker that refused: one of them is no message
                messages, owners = await self._sent_singly(outcome, messages, owners)
                continue
            refused = [
                (self._smaller(outcome, message, owner, error), owner)
                for message, owner, error in zip(messages, owners, decided, strict=True)
                if error is not None
            ]
            messages, owners = [message for message, _ in refused], [owner for _, owner in refused]

    async def _sent_singly(
        self, outcome: Outcome, messages: Sequence[Message], owners: Sequence[Owner]
    ) -> tuple[list[Message], list[Owner]]:
        """Send one by one what the producer choked on; returns what is left to send: dead letters of the guilty ones.

        Some may come twice: what of them had been handed over when the producer failed is not known.
        """
        left: list[Message] = []
        whose: list[Owner] = []
        for message, owner in zip(messages, owners, strict=True):
            try:
                (refusal,) = await self._publisher.publish([message])
            except Closed:
                raise
            except Exception as error:  # noqa: BLE001
                left.append(self._unsendable(outcome, message, owner, error))
                whose.append(owner)
                continue
            if refusal is not None:
                left.append(self._smaller(outcome, message, owner, refusal))
                whose.append(owner)
        return left, whose

    def _unsendable(self, outcome: Outcome, message: Message, owner: Owner, error: Exception) -> Message:
        if message.topic == self._dead_letters:
            raise error
        what = f"what was published to {message.topic} cannot be sent: {type(error).__name__}"
        return self._instead(outcome, owner, RecordError(Reason.AGENT_FAILED, what))

    def _smaller(self, outcome: Outcome, message: Message, owner: Owner, error: DeliveryError) -> Message:
        """Return what takes the place of a message that the broker will never take; raises when nothing is left."""
        if message.topic != self._dead_letters:
            if isinstance(error, RecordTooLarge):
                refused = RecordError(Reason.TOO_LARGE, f"what was published is larger than {message.topic} allows")
            else:
                refused = RecordError(Reason.AGENT_FAILED, f"what was published to {message.topic}: {error}")
            return self._instead(outcome, owner, refused)
        smaller = cut(message)
        if smaller == message:
            raise error
        return smaller

    async def _checked(self, outcome: Outcome, message: Message, owner: Owner) -> Message:
        """Return the message, or a dead letter when an agent publishes to a topic or partition that is not there."""
        topic, partition = message.topic, message.partition
        if {(topic, None), (topic, partition)} <= self._known:
            return message
        there = await self._publisher.partitions(topic)
        if there > (partition or 0):
            self._known |= {(topic, None), (topic, partition)}
            return message
        what = f"partition {partition} of {topic}, which has {there}" if there else f"topic {topic}, which is not there"
        return self._instead(outcome, owner, RecordError(Reason.AGENT_FAILED, f"{owner[1]} published to {what}"))

    def _instead(self, outcome: Outcome, owner: Owner, error: RecordError) -> Message:
        """Return the dead letter that takes the place of a message; raises when nothing may."""
        record, agent, essential = owner
        if essential:
            raise _indispensable(str(error))
        outcome.failed(record, error)
        return self._letter(record, error, agent)

    def _letter(self, record: ConsumerRecord, error: RecordError, agent: str | None) -> Message:
        self._metrics.dead_letter(agent, record.topic, error.reason)
        return self._make_letter(record, error, self._dead_letters, agent=agent)

    def _count(self, outcome: Outcome) -> None:
        now_ms = time.time() * 1000
        for (agent, topic), stamps in outcome.answered.items():
            self._metrics.answered(agent, topic, [(now_ms - stamp) / 1000 for stamp in stamps])


def _indispensable(what: str) -> MurmuraError:
    return MurmuraError(
        f"{what}, and without it nothing can go on: if it is too large, raise that topic's max.message.bytes"
    )
