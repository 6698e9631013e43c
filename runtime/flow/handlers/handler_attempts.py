"""Runs a handler on a record, with retries in place while its key waits, or through the topic of retries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aiokafka.structs import ConsumerRecord, TopicPartition

from ....schemas.deadletter import DeadLetterReason as Reason
from ....schemas.envelope import CE_ID, HOPS, REQUEST_ID, TRACEPARENT
from ....schemas.ids import default_request_id
from ...agent.handler import Handler, Predicts
from ...errors import Closed, MurmuraError, RecordError, describe_origin
from ...field_paths import FieldPaths
from ...observe.logs import get_logger
from ...observe.tracing import Tracing
from ...output.delivery import coordinates
from ...output.outcome import Outcome, Outgoing, UnparsedWork
from ...output.result import hand_on, keep_format
from ...output.suspending import Suspending
from ...wire.message import Message, Publish
from ...wire.request import read_headers, read_hops, read_id_in_body
from .handler_deadline import handle_in_time
from .handler_pauses import HandlerPauses
from .handler_slots import Slot

log = get_logger(__name__)


class HandlerRetries(Protocol):
    """Decides on retries. Implemented by `Retrying`."""

    def wants_retry(self, agent: str, error: BaseException | None) -> bool: ...
    def next_pause_s(self, agent: str, made: int, record: ConsumerRecord, error: BaseException | None) -> float: ...
    def can_wait(self, partition: TopicPartition, size: int) -> bool: ...
    def make_message(
        self, record: ConsumerRecord, agent: str, pause_s: float, made: int, *, may_wait: bool
    ) -> Outgoing | None: ...


class Postponed(MurmuraError):
    """The next attempt goes through the topic of retries."""


@dataclass(frozen=True, slots=True)
class InProgress:
    """A record between its start and its end."""

    record: ConsumerRecord
    partition: TopicPartition
    """The partition from which it was read."""
    size: int
    """Bytes in memory."""
    most_pausing_bytes: int
    """Bytes of its partition that may pause in memory; further records go through the topic of retries."""
    is_ordered: bool
    """Others of its key wait for it. A record of the topic of retries has lost its place among them."""
    slot: Slot
    is_assigned: Callable[[], bool]


class HandlerAttempts:
    """Runs one handler on records, with its retries.

    A record that pauses or waits does not count as work in progress, and holds no bytes and no place that others need.
    """

    def __init__(
        self,
        handler: Handler,
        engine: Predicts,
        *,
        suspending: Suspending,
        retrying: HandlerRetries | None,
        on_enter: Callable[[int], None],
        on_truncated: Callable[[str], None],
        max_value_bytes: int,
        max_hops: int | None,
        tracing: Tracing | None,
        fields: Mapping[str, FieldPaths],
    ) -> None:
        """`fields`: field paths of requests, by topic. `on_truncated`: see `handle_in_time`."""
        self._fields, self._on_truncated = fields, on_truncated
        self.handler, self._engine, self._retrying, self._on_enter = handler, engine, retrying, on_enter
        self._max_value_bytes, self._max_hops, self._tracing = max_value_bytes, max_hops, tracing
        self._suspending = suspending
        self.pauses = HandlerPauses()

    def notify(self, hook: Callable[..., None], *arguments: object) -> None:
        """Call a hook of the handler. If it raises, the handler is suspended; the record is not affected."""
        try:
            hook(*arguments)
        except Exception as error:  # noqa: BLE001 - the hook is user code
            self._suspending.suspend(self.handler.name, f"its hook {hook.__name__} failed: {describe_origin(error)}")

    async def run(self, current: InProgress, outcome: Outcome) -> list[tuple[Message, Publish]]:
        """Return the handler's messages. While the share rule suspends the handler, wait and run it again.

        Raises Postponed when the next attempt goes through the topic of retries, Closed when the partition is released.
        """
        name, suspending = self.handler.name, self._suspending
        while True:
            try:
                published = await self._run_with_retries(current, outcome)
            except RecordError as error:
                if error.reason is not Reason.AGENT_FAILED or not suspending.record_handler_failure(name, error):
                    raise
                self.notify(self.handler.given_up, current.record)
            else:
                suspending.record_handler_answer(name)
                return published
            await self._wait_while_suspended(current)

    async def _run_with_retries(self, current: InProgress, outcome: Outcome) -> list[tuple[Message, Publish]]:
        """Return the handler's messages, after as many attempts as it asks for and its policy allows."""
        record = current.record
        while True:
            try:
                return await self._run_once(record, outcome)
            except RecordError as error:
                name, retrying = self.handler.name, self._retrying
                if retrying is None or not retrying.wants_retry(name, error.__cause__):
                    raise
                made = outcome.attempts(record)
                pause_s = retrying.next_pause_s(name, made, record, error.__cause__)
            # Here, not above: the frames of the error would stay in memory during the pause.
            message = await self._pause_or_postpone(retrying, current, pause_s, made)
            if message is not None:
                outcome.add(message)
                raise Postponed
            outcome.works[0] = UnparsedWork(record, outcome.works[0].progress, made + 1)

    async def _pause_or_postpone(
        self, retrying: HandlerRetries, current: InProgress, pause_s: float, made: int
    ) -> Outgoing | None:
        """Wait for the next attempt, or return the message that postpones it through the topic of retries."""
        record, name = current.record, self.handler.name
        if current.is_ordered:
            await self._pause(current, pause_s, may_move=False)
            return None
        has_room = self.pauses.bytes[current.partition] + current.size <= current.most_pausing_bytes
        has_room = has_room and retrying.can_wait(current.partition, current.size)
        message = retrying.make_message(record, name, pause_s, made, may_wait=has_room)
        if message is None and (left_s := await self._pause(current, pause_s, may_move=True)):
            message = retrying.make_message(record, name, left_s, made, may_wait=False)
        return message

    async def _pause(self, current: InProgress, pause_s: float, *, may_move: bool) -> float:
        """Wait for the next attempt; returns the seconds left when the record must move to the topic of retries.

        Raises Closed when the partition is released.
        """
        left_s = 0.0
        self._on_enter(-1)
        async with current.slot.given_back():
            try:
                if current.is_assigned():
                    left_s = await self.pauses.wait(current.partition, current.size, pause_s, may_move=may_move)
            finally:
                self._on_enter(1)
        if not current.is_assigned():
            raise Closed("its partition was given up")
        return left_s

    async def _wait_while_suspended(self, current: InProgress) -> None:
        """Wait until the suspended handler is asked again. Raises Closed when the partition is released."""
        name = self.handler.name
        self._on_enter(-1)
        async with current.slot.given_back():
            try:
                await self._suspending.wait(name, self._suspending.why(name))
            finally:
                self._on_enter(1)
        if not current.is_assigned():
            raise Closed("its partition was given up")

    async def _run_once(self, record: ConsumerRecord, outcome: Outcome) -> list[tuple[Message, Publish]]:
        """Return the handler's messages for a record, each with what it was made from."""
        try:
            headers = read_headers(record.headers)
            hops = read_hops(headers.get(HOPS), self._max_hops)
        except RecordError:
            if self._tracing is not None:
                outcome.trace(self._tracing.begin_refused(record, None))
            raise
        request_id = (
            headers.get(REQUEST_ID)
            or headers.get(CE_ID)
            or read_id_in_body(record, self._max_value_bytes, self._fields.get(record.topic))
        )
        if request_id is None:
            request_id = default_request_id(record.topic, record.partition, record.offset, record.timestamp)
        text = headers.get(TRACEPARENT)
        trace = None if text is None else text.encode()
        if (
            self._tracing is not None
            and not outcome.spans
            and (span := self._tracing.begin(record, request_id, trace)) is not None
        ):
            span.handled_by(self.handler.name)
            trace = span.traceparent
            outcome.trace(span)
        if record.value is not None and len(record.value) > self._max_value_bytes:
            raise RecordError(Reason.TOO_LARGE, f"the value has {len(record.value)} bytes")
        try:
            published = await handle_in_time(self.handler, record, self._engine, self._on_truncated)
            onward = [keep_format(publish, record) for publish in published]
            return [(hand_on(publish, request_id, hops, trace), publish) for publish in onward]
        except (RecordError, Closed):
            raise
        except Exception as error:
            log.error("a handler failed", agent=self.handler.name, why=describe_origin(error), **coordinates(record))
            raise RecordError(Reason.AGENT_FAILED, f"{self.handler.name} raised {type(error).__name__}") from error
