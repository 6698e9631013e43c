"""Sends the messages of records and marks the records finished once the broker has acknowledged them."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from aiokafka.structs import ConsumerRecord

from ...schemas.deadletter import DeadLetterReason as Reason
from ..errors import Closed, DeliveryError, MurmuraError, RecordError, RecordTooLarge, Scope
from ..observe.logs import get_logger
from ..observe.metrics import Metrics
from ..observe.tracing import Span
from ..wire.dead_letter import MakeLetter, cut, dead_letter
from ..wire.message import Message
from .dead_letter_gate import DeadLetterGate
from .delivery import Delivery
from .outcome import Outcome, Outgoing, Work
from .suspending import Suspending

log = get_logger(__name__)


class PublisherLike(Protocol):
    """The part of the publisher that the outbox uses."""

    taking: asyncio.Event

    async def publish(self, messages: Sequence[Message]) -> list[DeliveryError | None]: ...

    async def partitions(self, topic: str) -> int:
        """Return 0 when there is no such topic. Waits while the broker does not answer."""
        ...


class Outbox:
    """Sends each outcome in its own task, and finishes its records when the broker has acknowledged its messages.

    Invariants:
    - a record is finished only when every message about it has been acknowledged, or dropped as best effort;
    - a finally refused message is replaced once: a result by a dead letter, a dead letter by a cut one;
    - messages to a known topic do not wait for the lookup of another topic;
    - a refused dead letter is retried, and no record is admitted until it is accepted;
    - a record that cannot be dead-lettered, or a refused essential message, sets `failure`: the process must stop,
      because no record may be skipped.
    """

    def __init__(
        self,
        publisher: PublisherLike,
        metrics: Metrics,
        *,
        dead_letters: str,
        make_letter: MakeLetter = dead_letter,
        gate: DeadLetterGate | None = None,
        suspending: Suspending,
        declared_topics: Iterable[str],
        on_done: Callable[[int], None],
    ) -> None:
        """`on_done` gets the number of records that left, finished or not; negative: records that came back."""
        self._publisher, self._metrics = publisher, metrics
        self._dead_letters, self._make_letter = dead_letters, make_letter
        self.gate = gate or DeadLetterGate(dead_letters)
        self._suspending = suspending
        self._declared = frozenset(declared_topics)
        self._known: set[tuple[str, int | None]] = {(topic, None) for topic in (dead_letters, *self._declared)}
        """(topic, partition) pairs that existed when they were looked up; partition None: the topic itself."""
        self._on_done = on_done
        self._tasks: set[asyncio.Task[bool] | asyncio.Task[None]] = set()
        self.last_progress = time.monotonic()
        """Monotonic time in seconds at which a record was last finished."""
        self.pending = 0
        """Number of records whose messages are being sent."""
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        """End the process with this error. Only the first error is kept."""
        if not self.failure.done():
            self.failure.set_exception(error)

    async def open(self) -> None:
        """Wait until the broker accepts messages, dead letters included."""
        while not (self._publisher.taking.is_set() and self.gate.opened.is_set()):
            await self._publisher.taking.wait()
            await self.gate.opened.wait()

    def reject(self, outcome: Outcome, work: Work, error: RecordError) -> None:
        """Add a record that no agent can answer: its only message is a dead letter."""
        outcome.works.append(work)
        self.dead_letter(outcome, work.record, error, None)

    def dead_letter(
        self, outcome: Outcome, record: ConsumerRecord, error: RecordError, agent: str | None, span: Span | None = None
    ) -> None:
        """Add the dead letter of a record, or of one agent's part of it, and mark its span as failed."""
        if span is not None:
            span.failed(error.reason)
        outcome.add(self._letter(record, error, agent, outcome.attempts(record)))

    def send(self, outcome: Outcome) -> "asyncio.Task[bool]":
        """Send an outcome in the background. The task returns whether its records are finished."""
        self.pending += len(outcome.works)
        task = asyncio.get_running_loop().create_task(self._send(outcome))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def put(self, messages: Sequence[Message], agent: str) -> "asyncio.Task[None]":
        """Send messages that belong to no record, in the background. The task raises when one is refused for good.

        While a topic that the agent declares refuses records, the agent is suspended.

        A task, because a send must not be cancelled: it continues when the caller stops waiting.
        """
        task = asyncio.get_running_loop().create_task(self._put(messages, agent))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _put(self, messages: Sequence[Message], agent: str) -> None:
        while messages:
            decided = await self._publisher.publish(messages)
            refused = [(message, error) for message, error in zip(messages, decided, strict=True) if error is not None]
            for message, error in refused:
                if error.scope is not Scope.TOPIC or not self._suspending.declares(agent, message.topic):
                    problem = f"topic {message.topic} takes no record of {len(message.value or b'')} bytes"
                    raise _essential_refused(problem) from error
            messages = [message for message, _ in refused]
            if messages:
                await self._suspending.wait(agent, str(refused[0][1]))
        self._suspending.record_sent(agent)

    async def _send(self, outcome: Outcome) -> bool:
        records = len(outcome.works)
        try:
            async for part in outcome.parts():
                await self._publish(outcome, part)
        except Closed:
            return False
        except Exception as error:
            log.exception("a record can be neither answered nor dead-lettered")
            self.fail(error)
            return False
        else:
            for work in outcome.works:
                work.progress.finish(work.record.offset)
            if self._suspending.is_probing:
                for work in outcome.works:
                    self._suspending.record_finish(work)
            for span in outcome.spans:
                span.end()
            self.last_progress = time.monotonic()
            outcome.count(self._metrics)
            return True
        finally:
            self.pending -= records
            self._on_done(records)

    async def _publish(self, outcome: Outcome, sending: Sequence[Outgoing]) -> None:
        """Send all messages. Those to known topics do not wait for the lookup of others."""
        if self._known.issuperset((each.message.topic, each.message.partition) for each in sending):
            await self._publish_known(outcome, sending)
            return
        known: list[Outgoing] = []
        unknown: dict[str, list[Outgoing]] = {}
        for each in sending:
            topic, partition = each.message.topic, each.message.partition
            if {(topic, None), (topic, partition)} <= self._known:
                known.append(each)
            else:
                unknown.setdefault(topic, []).append(each)
        ends = await asyncio.gather(
            self._publish_known(outcome, known),
            *(self._publish_checked(outcome, topic, group) for topic, group in unknown.items()),
            return_exceptions=True,
        )
        for error in ends:
            if error is not None:
                raise error

    async def _publish_checked(self, outcome: Outcome, topic: str, sending: Sequence[Outgoing]) -> None:
        """Look up the number of partitions of a topic once, then send."""
        partitions = await self._publisher.partitions(topic)
        checked = (self._check(outcome, each, partitions) for each in sending)
        await self._publish_known(outcome, [each for each in checked if each is not None])

    def _check(self, outcome: Outcome, outgoing: Outgoing, partitions: int) -> Outgoing | None:
        """Return the message to send: the given one, or a dead letter when its topic or partition does not exist."""
        topic, partition = outgoing.message.topic, outgoing.message.partition
        if partitions > (partition or 0):
            self._known |= {(topic, None), (topic, partition)}
            return outgoing
        if partitions and outgoing.any_partition:
            return outgoing.to_partition(None)
        if not partitions and topic in self._declared:
            return outgoing  # the publisher's refusal has the scope of the failure
        if partitions and topic == self._suspending.overflow.topic:
            return outgoing.to_partition(partitions - 1)  # a shorter step: the record goes round once more
        problem = f"topic {topic}, which is not there"
        if partitions:
            problem = f"partition {partition} of {topic}, which has {partitions}"
        return self._replace(
            outcome, outgoing, RecordError(Reason.AGENT_FAILED, f"{outgoing.agent} published to {problem}")
        )

    async def _publish_known(self, outcome: Outcome, sending: Sequence[Outgoing]) -> None:
        attempt, waited_for = 0, None
        while sending:
            try:
                decided = await self._publisher.publish([each.message for each in sending])
            except Closed:
                raise
            except Exception:  # noqa: BLE001 - not a broker error: one of them is no valid message
                sending = await self._publish_singly(outcome, sending)
                continue
            refused = [(each, error) for each, error in zip(sending, decided, strict=True) if error is not None]
            if self._suspending.overflow.refused:
                pairs = zip(sending, decided, strict=True)
                self._suspending.overflow.note_accepted(each.message.topic for each, error in pairs if error is None)
            if not refused and not waited_for and self.gate.opened.is_set():
                return
            accepted = (each for each, error in zip(sending, decided, strict=True) if error is None)
            if any(each.message.topic == self._dead_letters for each in accepted):
                self.gate.open()
            tried = [(self._handle_refusal(outcome, each, error), error) for each, error in refused]
            sending = [each for each, _ in tried if each is not None]
            waits = next(
                ((each, error) for each, error in tried if each is not None and self._suspends_agent(each, error)), None
            )
            if waited_for is not None and waits is None:
                self._suspending.record_sent(waited_for)
            waited_for = None
            if waits is not None:
                waited_for = waits[0].agent or ""
                try:
                    await self._wait(waited_for, str(waits[1]), outcome)
                    await outcome.check_ownership()
                except RecordError as error:  # its time limit has passed
                    replaced = [self._replace(outcome, each, error) for each in sending]
                    sending, waited_for = [each for each in replaced if each is not None], None
            elif not self.gate.opened.is_set() and any(each.message.topic == self._dead_letters for each in sending):
                attempt += 1
                await self.gate.pause(attempt)

    async def _wait(self, agent: str, why: str, outcome: Outcome) -> None:
        """Wait until a message that a declared topic refused may be sent again. It is not pending meanwhile."""
        records = len(outcome.works)
        self.pending -= records
        self._on_done(records)
        async with outcome.while_waiting():
            try:
                await self._suspending.wait(agent, why)
            finally:
                self.pending += records
                self._on_done(-records)

    async def _publish_singly(self, outcome: Outcome, sending: Sequence[Outgoing]) -> list[Outgoing]:
        """Send messages one by one after the producer raised; returns what is left to send: dead letters of bad ones.

        Some may be sent twice: which of them the producer had accepted before it raised is not known.
        """
        left: list[Outgoing | None] = []
        for each in sending:
            try:
                (refusal,) = await self._publisher.publish([each.message])
            except Closed:
                raise
            except Exception as error:
                if each.message.topic == self._dead_letters:
                    raise
                problem = f"what was published to {each.message.topic} cannot be sent: {type(error).__name__}"
                left.append(self._replace(outcome, each, RecordError(Reason.AGENT_FAILED, problem)))
                continue
            if refusal is not None:
                left.append(self._handle_refusal(outcome, each, refusal))
        return [each for each in left if each is not None]

    def _handle_refusal(self, outcome: Outcome, outgoing: Outgoing, error: DeliveryError) -> Outgoing | None:
        """Return what to send instead of a refused message. A dead letter that cannot be cut is returned unchanged."""
        message = outgoing.message
        if error.scope is Scope.PROCESS:
            raise error
        if message.topic == self._dead_letters:
            if isinstance(error, RecordTooLarge) and (smaller := cut(message)) != message:
                return outgoing._replace(message=smaller)
            self.gate.close(error)
            return outgoing
        if message.partition is not None or message.topic not in self._declared:
            self._known.discard((message.topic, message.partition))
        if self._suspends_agent(outgoing, error):
            return self._hold(outcome, outgoing, error)
        if isinstance(error, RecordTooLarge):
            problem = f"what was published is larger than {message.topic} allows"
            return self._replace(outcome, outgoing, RecordError(Reason.TOO_LARGE, problem))
        if outgoing.any_partition and message.partition is not None:
            return outgoing.to_partition(None)
        problem = f"what was published to {message.topic}: {error}"
        return self._replace(outcome, outgoing, RecordError(Reason.AGENT_FAILED, problem))

    def _suspends_agent(self, outgoing: Outgoing, error: DeliveryError) -> bool:
        """Return whether a refusal suspends the agent: a topic that it declares refuses records."""
        return (
            error.scope is Scope.TOPIC
            and not outgoing.best_effort
            and self._suspending.declares(outgoing.agent, outgoing.message.topic)
        )

    def _hold(self, outcome: Outcome, outgoing: Outgoing, error: DeliveryError) -> Outgoing | None:
        """Suspend an agent and hold its part of the record. A handler's message is returned, to be sent again."""
        agent = outgoing.agent or ""
        self._suspending.overflow.note_refused(outgoing.message.topic, str(error))
        work = next((work for work in outcome.works if work.record is outgoing.record and _is_asked(work, agent)), None)
        if not isinstance(work, Delivery):
            return None if work is None else outgoing
        if outcome.take_back(outgoing.record, agent) and self._suspending.record_refusal(work, agent, str(error)):
            outcome.works = [other for other in outcome.works if other is not work]
        return None

    def _replace(self, outcome: Outcome, outgoing: Outgoing, error: RecordError) -> Outgoing | None:
        """Return the dead letter that replaces a message; None when it is dropped, or when the part has one already.

        Raises MurmuraError when the message is essential.
        """
        record, agent = outgoing.record, outgoing.agent
        if outgoing.best_effort:
            self._metrics.dropped(outgoing.message.topic)
            return None
        if outgoing.essential:
            raise _essential_refused(str(error))
        if not outcome.take_back(record, agent):
            return None
        outcome.fail(record, error)
        return self._letter(record, error, agent, outcome.attempts(record))

    def _letter(self, record: ConsumerRecord, error: RecordError, agent: str | None, attempts: int) -> Outgoing:
        self._metrics.dead_letter(agent, record.topic, error.reason)
        make = self._make_letter
        return Outgoing(make(record, error, self._dead_letters, agent=agent, attempts=attempts), record, agent)


def _is_asked(work: Work, agent: str) -> bool:
    """Return whether an agent is asked in a work: waiting parts of one record may be retried together."""
    return not isinstance(work, Delivery) or any(bound.agent.name == agent for bound, _ in work.asked)


def _essential_refused(problem: str) -> MurmuraError:
    advice = "if it is too large, raise that topic's max.message.bytes"
    return MurmuraError(f"{problem}, and without it nothing can go on: {advice}")
