"""Tries records again for which an agent has asked for another attempt: in memory, or through the topic of retries."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, Self

from aiokafka.structs import ConsumerRecord, TopicPartition

from ...schemas.deadletter import DeadLetterReason as Reason
from ..agent.agent import Agent
from ..agent.handler import Handler
from ..agent.routes import Route
from ..errors import RecordError, Retry
from ..field_paths import FieldPaths
from ..kafka.offset_tracker import Progress
from ..observe.logs import get_logger
from ..output.bounds import MIB
from ..output.delivery import Attempt, Delivery
from ..output.expiry import age_s, expiry_for
from ..output.held_parts import split_off
from ..output.outcome import Given, Outcome, Outgoing, Work
from ..settings.retries import AgentRetrySettings
from ..settings.retry_policy import IN_MEMORY_S, STEPS_S, DelayQueue, RetryPolicy, choose_step
from ..settings.settings import AgentSettings, Settings
from ..wire.retry_record import Coordinates, retry_message
from ..wire.retry_record import Retry as RetryHeaders
from .handler_runner import HandlerRunner
from .redelivery import FinishesRetry, original_of, redelivery
from .retry_intake import RetryIntake, Waiting

log = get_logger(__name__)

_TICK_S: Final = 0.05
_MOST_AT_ONCE: Final = 256
_JUST_PAST_S: Final = 0.002
"""Headers hold times in milliseconds, cut."""


@dataclass(frozen=True, slots=True)
class AgentRetries:
    """What an agent asks another attempt for, and how often it has one."""

    policy: RetryPolicy
    retry_on: tuple[type[Exception], ...] = ()


class Waits(NamedTuple):
    """A part of a record that waits in memory."""

    partition: TopicPartition
    delivery: Delivery
    agent: str | None
    """Who is asked; None: all that read the topic."""
    due: float


class Line(Protocol):
    """What is done with records that are due: the dispatcher."""

    def admit_again(self, partition: TopicPartition, delivery: Delivery) -> None: ...
    def give_up(self, delivery: Work, error: RecordError, agent: str | None) -> None: ...
    def put_off(self, outcome: Outcome) -> None: ...
    def go_on(self) -> None: ...
    def is_at_bound(self, partition: TopicPartition) -> bool: ...
    def has_room(self, partition: TopicPartition) -> bool: ...
    def route(self, topic: str) -> Route | None: ...
    def runner(self, topic: str) -> HandlerRunner | None: ...


class Retrying:
    """Owns the parts of records that wait for another attempt, and what was fetched of the topic of retries.

    Invariants:
    - what waits in memory is not finished: after a crash it is delivered again, and its attempts are counted anew from
      what its record says;
    - an original whose part went to the topic is finished only when the broker has acknowledged that;
    - what waits in memory is bounded in bytes: above that it goes to the topic, and where there is none its partition is
      paused.
    """

    def __init__(
        self,
        agents: Mapping[str, AgentRetries],
        *,
        app: str,
        topic: str | None,
        steps_s: Sequence[float] = STEPS_S,
        in_memory_s: float = IN_MEMORY_S,
        max_bytes: int = 16 * MIB,
        max_value_bytes: int = MIB,
        max_hops: int | None = None,
        fields: Mapping[str, FieldPaths] | None = None,
        clock: Callable[[], float] = time.time,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """`topic` None: there is no topic of retries, and pauses are cut to what may wait in memory."""
        self._agents, self._app, self.topic, self._steps_s = agents, app, topic, tuple(steps_s)
        self._max_bytes, self._max_value_bytes, self._max_hops = max_bytes, max_value_bytes, max_hops
        self._fields, self._in_memory_s = fields or {}, in_memory_s
        self._clock, self._uniform = clock, uniform
        self._memory: DelayQueue[Waits] = DelayQueue()
        self._bytes = 0
        self._intake = RetryIntake(app, self._steps_s)
        self.partition_bytes = 0
        """Not looked at: no more than one fetch of each partition waits."""
        self.line: Line
        """Set by whoever has the records."""

    @classmethod
    def configured(cls, everyone: Iterable[Agent | Handler], settings: Settings, partitions: Mapping[str, int]) -> Self:
        agents = {
            each.name: AgentRetries(_settings_of(each, settings).policy, tuple(each.retry_on)) for each in everyone
        }
        topic = settings.retry_topic
        count, steps_s = partitions.get(topic, 0), settings.retries.steps_s
        if not count:
            log.warning(
                "there is no topic of retries: pauses are cut to what waits in memory, and dead letters sent again there "
                "are not read; make it with `murmura topics --create`",
                topic=topic,
                longest_pause_s=settings.retries.in_memory_s,
            )
        elif count < len(steps_s):
            log.warning("the topic of retries has fewer partitions than steps", topic=topic, partitions=count)
        return cls(
            agents,
            app=settings.app,
            topic=topic if count else None,
            steps_s=steps_s[: count or None],
            in_memory_s=settings.retries.in_memory_s,
            max_bytes=settings.limits.max_partition_waiting_bytes,
            max_value_bytes=settings.limits.max_value_bytes,
            max_hops=settings.limits.max_hops,
            fields=settings.fields,
        )

    # -- what an agent asks for ---------------------------------------------------------------------------------------

    def asks(self, agent: str, error: BaseException | None) -> bool:
        """Say whether what an agent raised asks for another attempt."""
        if isinstance(error, Retry):
            return True
        retries = self._agents.get(agent)
        return retries is not None and isinstance(error, retries.retry_on)

    def pause_s(self, agent: str, made: int, record: ConsumerRecord, error: BaseException | None) -> float:
        """Return the pause before the next attempt. RecordError `expired_retries` when there is none."""
        retries = self._agents.get(agent) or AgentRetries(RetryPolicy())
        asked_s = error.after_s if isinstance(error, Retry) else None
        age = age_s(record.timestamp, self._clock())
        pause_s = retries.policy.next_pause_s(made, age, self._uniform, asked_s)
        if pause_s is None:
            why = error.why if isinstance(error, Retry) else type(error).__name__
            what = f"{agent} asked for another attempt after {made}, and there is none: {why or 'no reason given'}"
            raise RecordError(Reason.EXPIRED_RETRIES, what)
        return pause_s if self.topic is not None else min(pause_s, self._in_memory_s)

    def try_again(self, outcome: Outcome, delivery: Delivery, agent: str, error: BaseException | None) -> bool:
        """Let an agent's part wait for another attempt; True when that is all there is to the delivery, which is then not to
        be finished. RecordError `expired_retries` when there is no other attempt.
        """
        made = delivery.attempt.number
        due = self._clock() + self.pause_s(agent, made, delivery.record, error)
        due = min(due, expiry_for(delivery, agent) + _JUST_PAST_S)  # then it is answered `expired`, and not later
        full = self._bytes + delivery.bytes > self._max_bytes
        if self.topic is not None and (full or due - self._clock() > self._in_memory_s):
            outcome.add(self._message(delivery.record, agent, due, made))
            return False
        whole = len(delivery.asked) == 1
        part = delivery if whole else split_off(delivery, agent)
        part.attempt = Attempt(made + 1, agent)
        part.span = None
        self._memory.push(Waits(TopicPartition(part.record.topic, part.record.partition), part, agent, due), due)
        self._bytes += part.bytes
        return whole

    def message(self, record: ConsumerRecord, agent: str, pause_s: float, made: int) -> Outgoing | None:
        """Return what puts off a handler's record; None when the pause is to be waited for in memory."""
        if self.topic is None or pause_s <= self._in_memory_s:
            return None
        return self._message(record, agent, self._clock() + pause_s, made)

    def _message(self, record: ConsumerRecord, agent: str | None, due: float, made: int) -> Outgoing:
        original = Coordinates(record.topic, record.partition, record.offset, record.timestamp)
        headers = RetryHeaders(self._app, original, agent, due, made)
        step = choose_step(due - self._clock(), self._steps_s)
        return Outgoing(retry_message(record, headers, self.topic or "", step), record, agent)

    def overflow(self, part: Delivery, agent: str) -> bool:
        """Move the part of a suspended agent to the topic, for the length of its first step; False where there is none."""
        if self.topic is None:
            return False
        outcome = Outcome()
        outcome.works.append(part)
        outcome.add(self._message(part.record, agent, self._clock() + self._steps_s[0], part.attempts - 1))
        self.line.put_off(outcome)
        return True

    # -- as a runner of the topic of retries --------------------------------------------------------------------------

    def receive(self, partition: TopicPartition, records: Sequence[ConsumerRecord], progress: Progress) -> int | None:
        """Take fetched records of the topic of retries; all of them are taken."""
        _, unusable = self._intake.receive(partition, records, progress)
        for record, noted, error in unusable:
            self.line.give_up(Given(record, noted), error, None)
        return None

    def is_full(self, partition: TopicPartition) -> bool:
        return self._intake.holds(partition)

    def has_room(self, partition: TopicPartition) -> bool:
        return not self._intake.holds(partition)

    # -- as time goes by ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Let go what is due, for ever."""
        while True:
            await asyncio.sleep(_TICK_S)
            if self._memory or self._intake:
                self.look()

    def look(self) -> None:
        now = self._clock()
        for waits in self._memory.pop_due(now):
            self._bytes -= waits.delivery.bytes
            self.line.admit_again(waits.partition, waits.delivery)
        if self.topic is not None and self._memory:
            self._move_early()
        for waiting in self._intake.take_due(now, _MOST_AT_ONCE, self.line.has_room):
            self._begin(waiting, now)
        self.line.go_on()

    def _move_early(self) -> None:
        """Send to the topic what waits in partitions in which nothing more may be delivered before it is committed."""
        for waits in self._memory.take(lambda waits: self.line.is_at_bound(waits.partition)):
            self._bytes -= waits.delivery.bytes
            outcome = Outcome()
            outcome.works.append(waits.delivery)
            made = waits.delivery.attempt.number - 1
            outcome.add(self._message(waits.delivery.record, waits.agent, waits.due, made))
            self.line.put_off(outcome)

    def _begin(self, waiting: Waiting, now: float) -> None:
        """Begin the next attempt at what was read of the topic, or let the rest of its pause be waited for."""
        record, progress, retry, _ = waiting
        original = original_of(record, retry.original)
        noted = FinishesRetry(progress, record.offset)
        left_s = retry.not_before - now
        if left_s > self._in_memory_s:
            outcome = Outcome()
            outcome.works.append(Given(original, noted, retry.attempts + 1))
            step = choose_step(left_s, self._steps_s)
            message = retry_message(original, retry, self.topic or "", step)
            outcome.add(Outgoing(message, original, retry.only_agent))
            self.line.put_off(outcome)
            return
        partition = TopicPartition(record.topic, record.partition)
        try:
            runner = self.line.runner(original.topic)
            if runner is not None and retry.only_agent in {None, runner.handler.name}:
                runner.requeue(partition, original, noted, retry.attempts + 1)
                return
            route = self.line.route(original.topic)
            if route is None:
                what = f"agent {retry.only_agent or '(any)'} reads no topic {original.topic} here"
                raise RecordError(Reason.AGENT_FAILED, what)
            delivery = redelivery(
                record,
                progress,
                retry,
                max_value_bytes=self._max_value_bytes,
                max_hops=self._max_hops,
                fields=self._fields.get(original.topic),
            )
            delivery.settle(route)
        except RecordError as error:
            self.line.give_up(Given(original, noted, retry.attempts + 1), error, retry.only_agent)
            return
        if left_s > 0:
            self._memory.push(Waits(partition, delivery, retry.only_agent, retry.not_before), retry.not_before)
            self._bytes += delivery.bytes
        else:
            self.line.admit_again(partition, delivery)

    def blocks(self, partition: TopicPartition) -> bool:
        """Say whether a partition is to be paused: too much waits in memory, and there is no topic that it could go to."""
        return self.topic is None and self._bytes >= self._max_bytes

    def clear(self) -> None:
        """Forget what waits: it will be delivered again."""
        self._memory.clear()
        self._bytes = 0
        self._intake.clear()

    @property
    def topics(self) -> tuple[str, ...]:
        return () if self.topic is None else (self.topic,)

    # -- readings -----------------------------------------------------------------------------------------------------

    def in_memory(self) -> float:
        """Return how many parts wait in memory."""
        return len(self._memory)

    def overdue_s(self) -> float:
        """Return for how long the most overdue record of the topic has been due."""
        return self._intake.overdue_s(self._clock())


def _settings_of(agent: Agent | Handler, settings: Settings) -> AgentRetrySettings:
    return settings.agents.get(agent.name, AgentSettings()).retries
