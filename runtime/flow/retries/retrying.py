"""Retries records for which an agent asked for another attempt: in memory, or through the topic of retries."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol, Self

from aiokafka.structs import ConsumerRecord, TopicPartition

from ....schemas.deadletter import DeadLetterReason as Reason
from ...agent.agent import Agent
from ...agent.handler import Handler
from ...agent.routes import Route
from ...errors import RecordError, Retry
from ...field_paths import FieldPaths
from ...kafka.offset_tracker import Progress
from ...observe.logs import get_logger
from ...output.bounds import MIB, held_bytes
from ...output.delivery import Delivery
from ...output.expiry import age_s, expiry_for
from ...output.held_parts import split_off
from ...output.outcome import Outcome, Outgoing, UnparsedWork, Work
from ...output.overflow import Overflow
from ...settings.retry_policy import IN_MEMORY_S, STEPS_S, RetryPolicy, choose_step
from ...settings.settings import Settings
from ...wire.retry_record import Coordinates, retry_message
from ...wire.retry_record import Retry as RetryHeaders
from ..handlers.handler_runner import HandlerRunner
from .agent_retries import AgentRetries
from .redelivery import RetryProgress, make_redelivery, restore_original
from .retry_intake import FetchedRetry, RetryIntake
from .retry_memory import PendingRetry, RetryMemory

log = get_logger(__name__)

_TICK_S: Final = 0.05
_MOST_AT_ONCE: Final = 256
_JUST_PAST_S: Final = 0.002
"""Margin for times in headers, which are truncated to milliseconds."""


class RetryTarget(Protocol):
    """Receives records that are due, moved or failed. Implemented by `Readmission`."""

    def requeue(self, partition: TopicPartition, delivery: Delivery) -> None: ...
    def dead_letter(self, delivery: Work, error: RecordError, agent: str | None) -> None: ...
    def send(self, outcome: Outcome) -> None: ...
    def resume(self) -> None: ...
    def is_at_bound(self, partition: TopicPartition) -> bool: ...
    def move_early(self) -> None: ...
    def has_room(self, partition: TopicPartition) -> bool: ...
    def can_hold(self, partition: TopicPartition, size: int) -> bool: ...
    def route(self, topic: str) -> Route | None: ...
    def runner(self, topic: str) -> HandlerRunner | None: ...


class Retrying:
    """Owns the parts of records that wait for another attempt, and the fetched records of the topic of retries.

    Invariants:
    - a part that waits in memory is not finished: after a crash it is delivered again, and its attempts restart at the
      number in its record's headers;
    - an original with a part sent to the topic is finished only when the broker has acknowledged that;
    - the parts in memory are bounded in bytes, and in the share of their partition: further ones go to the topic, and
      without a topic their partition is paused.
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
        """`topic` None: there is no topic of retries, and pauses are limited to `in_memory_s`."""
        self._agents, self._app, self.topic, self._steps_s = agents, app, topic, tuple(steps_s)
        self._max_value_bytes, self._max_hops = max_value_bytes, max_hops
        self._fields, self._in_memory_s = fields or {}, in_memory_s
        self._clock, self._uniform = clock, uniform
        self._memory = RetryMemory(max_bytes)
        self._intake = RetryIntake(app, self._steps_s)
        self.overflow = Overflow(topic, self._move)
        """Takes parts of suspended agents; refused while the topic takes no records at all."""
        self.partition_bytes = max_bytes
        """Share of each partition of the topic: a quarter is for what is not due, one for what is tried, half for what waits on."""
        self.target: RetryTarget
        """Set by the dispatcher."""

    @classmethod
    def from_settings(
        cls, everyone: Iterable[Agent | Handler], settings: Settings, partitions: Mapping[str, int]
    ) -> Self:
        agents = {each.name: AgentRetries.from_settings(each, settings) for each in everyone}
        topic = settings.retry_topic
        count, steps_s = partitions.get(topic, 0), settings.retries.steps_s
        if not count:
            log.warning(
                "there is no topic of retries: pauses are limited to those in memory, and dead letters sent again there are "
                "not read; create it with `murmura topics --create`",
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

    def wants_retry(self, agent: str, error: BaseException | None) -> bool:
        """Return whether an agent's error asks for another attempt."""
        if isinstance(error, Retry):
            return True
        retries = self._agents.get(agent)
        return retries is not None and isinstance(error, retries.retry_on)

    def next_pause_s(self, agent: str, made: int, record: ConsumerRecord, error: BaseException | None) -> float:
        """Return the pause before the next attempt. Raises RecordError `expired_retries` after the last attempt."""
        retries = self._agents.get(agent) or AgentRetries(RetryPolicy())
        asked_s = error.after_s if isinstance(error, Retry) else None
        age = age_s(record.timestamp, self._clock())
        pause_s = retries.policy.next_pause_s(made, age, self._uniform, asked_s)
        if pause_s is None:
            why = error.why if isinstance(error, Retry) else type(error).__name__
            message = f"{agent} asked for another attempt after {made}, and there is none: {why or 'no reason given'}"
            raise RecordError(Reason.EXPIRED_RETRIES, message)
        return pause_s if self.topic is not None else min(pause_s, self._in_memory_s)

    def schedule(self, outcome: Outcome, delivery: Delivery, agent: str, error: BaseException | None) -> bool:
        """Schedule another attempt at an agent's part; True when the delivery has no other part: do not finish it then.

        Raises RecordError `expired_retries` after the last attempt.
        """
        made = delivery.attempt.number
        due = self._clock() + self.next_pause_s(agent, made, delivery.record, error)
        due = min(due, expiry_for(delivery, agent) + _JUST_PAST_S)  # at its expiry it is answered `expired`
        pause_s, may_wait = due - self._clock(), self.can_wait(delivery.partition, delivery.bytes)
        if self._goes_to_topic(pause_s, may_wait=may_wait):
            outcome.add(self._make_message(delivery.record, agent, due, made))
            return False
        whole = len(delivery.asked) == 1
        part = delivery if whole else split_off(delivery, agent)
        part.attempt = part.attempt.next_one(agent, made + 1)
        part.span = None
        self._wait(part, agent, due)
        return whole

    def _wait(self, part: Delivery, agent: str | None, due: float) -> None:
        requeue = partial(self.target.requeue, part.partition, part)
        self._memory.add(PendingRetry(part.partition, part, part.bytes, agent, due, requeue))

    def can_wait(self, partition: TopicPartition, size: int) -> bool:
        """Return whether a part may wait in memory."""
        return self._memory.has_room(size) and self.target.can_hold(partition, size)

    def _goes_to_topic(self, pause_s: float, *, may_wait: bool) -> bool:
        """Return whether a part waits in the topic. What may not wait in memory does all the same while it is refused."""
        return self.topic is not None and (pause_s > self._in_memory_s or (self.overflow.is_open and not may_wait))

    def make_message(
        self, record: ConsumerRecord, agent: str, pause_s: float, made: int, *, may_wait: bool
    ) -> Outgoing | None:
        """Return the message that postpones a handler's record; None without a topic, or when it `may_wait` in memory and
        the pause is short enough.
        """
        if not self._goes_to_topic(pause_s, may_wait=may_wait):
            return None
        return self._make_message(record, agent, self._clock() + pause_s, made)

    def _make_message(
        self, record: ConsumerRecord, agent: str | None, due: float, made: int, step: int | None = None
    ) -> Outgoing:
        """Return the record of the topic. `step`: the partition; default: the longest step that is over when it is due."""
        original = Coordinates(record.topic, record.partition, record.offset, record.timestamp)
        headers = RetryHeaders(self._app, original, agent, due, made)
        if step is None:
            step = choose_step(due - self._clock(), self._steps_s)
        return Outgoing(retry_message(record, headers, self.topic or "", step), record, agent)

    def _move(self, part: Delivery, agent: str, suspended_s: float) -> None:
        """Move the part of a suspended agent to the topic: to a step no longer than the suspension, or the first.

        So a part is not written again each minute of a long suspension, and waits no longer after it than it lasted.
        """
        outcome = Outcome()
        outcome.works.append(part)
        step = choose_step(suspended_s, self._steps_s)
        due = self._clock() + self._steps_s[step]
        outcome.add(self._make_message(part.record, agent, due, part.attempts - 1, step))
        self.target.send(outcome)

    # -- as a runner of the topic of retries --------------------------------------------------------------------------

    def receive(self, partition: TopicPartition, records: Sequence[ConsumerRecord], progress: Progress) -> int | None:
        """Queue fetched records of the topic of retries; returns the offset of the first record that was not taken."""
        left_at, unusable = self._intake.receive(partition, records, progress, self.partition_bytes // 4)
        for record, retry_progress, error in unusable:
            self.target.dead_letter(UnparsedWork(record, retry_progress), error, None)
        return left_at

    def is_full(self, partition: TopicPartition) -> bool:
        return self._intake.holds(partition)

    def has_room(self, partition: TopicPartition) -> bool:
        return not self._intake.holds(partition)

    # -- due records --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Process due records periodically, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            if self.overflow.is_open:
                self.target.move_early()
            if self._memory or self._intake:
                self.process_due()

    def process_due(self) -> None:
        """Requeue the parts and records that are due."""
        now = self._clock()
        for pending in self._memory.pop_due(now):
            pending.requeue()
        if self.overflow.is_open and self._memory:
            self._move_early()
        if not self.overflow.refused:  # what goes round again would wait outside of all bounds
            for fetched in self._intake.take_due(now, _MOST_AT_ONCE, self.target.has_room):
                self._begin(fetched, now)
        self.target.resume()

    def _move_early(self) -> None:
        """Move parts to the topic whose partitions have reached their bound of uncommitted records."""
        for pending in self._memory.take(lambda item: self.target.is_at_bound(item.partition)):
            outcome, work = Outcome(), pending.work
            outcome.works.append(work)
            outcome.add(self._make_message(work.record, pending.agent, pending.due, work.attempts - 1))
            self.target.send(outcome)

    def _begin(self, fetched: FetchedRetry, now: float) -> None:
        """Start the next attempt at a record of the topic, or wait for the rest of its pause."""
        record, progress, retry, _ = fetched
        original = restore_original(record, retry.original)
        work = UnparsedWork(original, RetryProgress(progress, record.offset), retry.attempts + 1)
        partition, size = TopicPartition(record.topic, record.partition), held_bytes(record)
        left_s = retry.not_before - now
        if left_s > 0 and self._goes_to_topic(left_s, may_wait=self.can_wait(partition, size)):
            self._send_round(work, retry, left_s)
            return
        runner = self.target.runner(original.topic)
        if runner is None or retry.only_agent not in {None, runner.handler.name}:
            self._begin_delivery(fetched, work, left_s)
            return
        if runner.is_suspended and self.overflow.is_open and not self.target.can_hold(partition, size):
            self._send_round(work, retry._replace(not_before=now + self._steps_s[0]), self._steps_s[0])
            return
        requeue = partial(runner.requeue, partition, original, work.progress, work.attempts)
        if left_s > 0:
            self._memory.add(PendingRetry(partition, work, size, runner.handler.name, retry.not_before, requeue))
        else:
            requeue()

    def _begin_delivery(self, fetched: FetchedRetry, work: UnparsedWork, left_s: float) -> None:
        record, progress, retry, _ = fetched
        topic = retry.original.topic
        try:
            route = self.target.route(topic)
            if route is None:
                message_text = f"agent {retry.only_agent or '(any)'} reads no topic {topic} here"
                raise RecordError(Reason.AGENT_FAILED, message_text)
            delivery = make_redelivery(
                record,
                progress,
                retry,
                max_value_bytes=self._max_value_bytes,
                max_hops=self._max_hops,
                fields=self._fields.get(topic),
            )
            delivery.settle(route)
        except RecordError as error:
            self.target.dead_letter(work, error, retry.only_agent)
            return
        if left_s > 0:
            self._wait(delivery, retry.only_agent, retry.not_before)
        else:
            self.target.requeue(delivery.partition, delivery)

    def _send_round(self, work: UnparsedWork, retry: RetryHeaders, left_s: float) -> None:
        """Write a record to the topic again, to wait there for the rest of its pause."""
        outcome = Outcome()
        outcome.works.append(work)
        message = retry_message(work.record, retry, self.topic or "", choose_step(left_s, self._steps_s))
        outcome.add(Outgoing(message, work.record, retry.only_agent or self._reader(retry.original.topic)))
        self.target.send(outcome)

    def _reader(self, topic: str) -> str | None:
        """Return an agent that reads a topic: it is suspended while the record cannot be sent round again."""
        if (runner := self.target.runner(topic)) is not None:
            return runner.handler.name
        route = self.target.route(topic)
        return route.agents[0].agent.name if route else None

    def blocks(self, partition: TopicPartition) -> bool:
        """Return whether a partition must be paused: what waits of it is at its limit, and no topic of retries takes it."""
        return not self.overflow.is_open and (self._memory.is_full or not self.target.can_hold(partition, 0))

    def held_bytes(self, partition: TopicPartition) -> int:
        """Return the bytes of the parts of a partition that wait in memory."""
        return self._memory.bytes[partition]

    def clear(self) -> None:
        """Drop everything that waits: it will be delivered again."""
        self._memory.clear()
        self._intake.clear()

    @property
    def topics(self) -> tuple[str, ...]:
        return () if self.topic is None else (self.topic,)

    def in_memory(self) -> float:
        """Return the number of parts that wait in memory."""
        return len(self._memory)

    def overdue_s(self) -> float:
        """Return for how long the most overdue record of the topic has been due, in seconds."""
        return self._intake.overdue_s(self._clock())
