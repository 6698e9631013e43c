"""Runs a handler on a record, with retries in place while its key waits, or through the topic of retries."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from aiokafka.structs import ConsumerRecord

from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.envelope import CE_ID, HOPS, REQUEST_ID, TRACEPARENT
from ...schemas.ids import default_request_id
from ..agent.handler import Handler, Predicts
from ..errors import Closed, MurmuraError, RecordError, place_of
from ..observe.logs import get_logger
from ..observe.tracing import Tracing
from ..output.delivery import coordinates
from ..output.outcome import Outcome, Outgoing, UnparsedWork
from ..output.result import hand_on
from ..output.suspending import Suspending
from ..wire.message import Message
from ..wire.request import read_headers, read_hops, read_id_in_body
from .handler_deadline import handle_in_time

log = get_logger(__name__)


class HandlerRetries(Protocol):
    """Decides on retries. Implemented by `Retrying`."""

    def wants_retry(self, agent: str, error: BaseException | None) -> bool: ...
    def next_pause_s(self, agent: str, made: int, record: ConsumerRecord, error: BaseException | None) -> float: ...
    def make_message(self, record: ConsumerRecord, agent: str, pause_s: float, made: int) -> Outgoing | None: ...


class Postponed(MurmuraError):
    """The next attempt goes through the topic of retries."""


class HandlerAttempts:
    """Runs one handler on records, with its retries.

    A pause in place does not count as work in progress, and ends when the partitions are released.
    """

    def __init__(
        self,
        handler: Handler,
        engine: Predicts,
        *,
        suspending: Suspending,
        retrying: HandlerRetries | None,
        on_enter: Callable[[int], None],
        max_value_bytes: int,
        max_hops: int | None,
        tracing: Tracing | None,
    ) -> None:
        self.handler, self._engine, self._retrying, self._on_enter = handler, engine, retrying, on_enter
        self._max_value_bytes, self._max_hops, self._tracing = max_value_bytes, max_hops, tracing
        self._suspending = suspending
        self._cleared = asyncio.Event()

    def end_pauses(self) -> None:
        """End all pauses, because the partitions are released."""
        self._cleared.set()
        self._cleared = asyncio.Event()

    def notify(self, hook: Callable[..., None], *arguments: object) -> None:
        """Call a hook of the handler. If it raises, the handler is suspended; the record is not affected."""
        try:
            hook(*arguments)
        except Exception as error:  # noqa: BLE001 - the hook is user code
            self._suspending.suspend(self.handler.name, f"its hook {hook.__name__} failed: {place_of(error)}")

    async def _run_with_retries(
        self, record: ConsumerRecord, outcome: Outcome, is_assigned: Callable[[], bool]
    ) -> list[tuple[Message, bool]]:
        """Return the handler's messages, after as many attempts as it asks for and its policy allows."""
        while True:
            try:
                return await self._run_once(record, outcome)
            except RecordError as error:
                name, cause = self.handler.name, error.__cause__
                if self._retrying is None or not self._retrying.wants_retry(name, cause):
                    raise
                made = outcome.attempts(record)
                pause_s = self._retrying.next_pause_s(name, made, record, cause)
                message = None
                if self.handler.ordering != "key" or record.key is None:
                    message = self._retrying.make_message(record, name, pause_s, made)
                if message is not None:
                    outcome.add(message)
                    raise Postponed from error
                await self._wait(pause_s, is_assigned)
                outcome.works[0] = UnparsedWork(record, outcome.works[0].progress, made + 1)

    async def _wait(self, pause_s: float, is_assigned: Callable[[], bool]) -> None:
        """Wait for the next attempt, not counted as work in progress. Raises Closed when the partition is released."""
        self._on_enter(-1)
        try:
            if is_assigned():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._cleared.wait(), pause_s)
        finally:
            self._on_enter(1)
        if not is_assigned():
            raise Closed("its partition was given up")

    async def run(
        self, record: ConsumerRecord, outcome: Outcome, is_assigned: Callable[[], bool]
    ) -> list[tuple[Message, bool]]:
        """Return the handler's messages. While the share rule suspends the handler, wait and run it again."""
        name, suspending = self.handler.name, self._suspending
        while True:
            try:
                published = await self._run_with_retries(record, outcome, is_assigned)
            except RecordError as error:
                if error.reason is not Reason.AGENT_FAILED or not suspending.handler_failed(name, error):
                    raise
                self.notify(self.handler.given_up, record)
                self._on_enter(-1)  # waiting for the handler does not count as work in progress
                try:
                    await suspending.wait(name, suspending.why(name))
                finally:
                    self._on_enter(1)
            else:
                suspending.handler_answered(name)
                return published

    async def _run_once(self, record: ConsumerRecord, outcome: Outcome) -> list[tuple[Message, bool]]:
        """Return the handler's messages for a record, each with whether it is essential."""
        try:
            headers = read_headers(record.headers)
            hops = read_hops(headers.get(HOPS), self._max_hops)
        except RecordError:
            if self._tracing is not None:
                outcome.trace(self._tracing.begin_refused(record, None))
            raise
        request_id = (
            headers.get(REQUEST_ID) or headers.get(CE_ID) or read_id_in_body(record.value, self._max_value_bytes)
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
            published = await handle_in_time(self.handler, record, self._engine)
            return [(hand_on(publish, request_id, hops, trace), publish.essential) for publish in published]
        except (RecordError, Closed):
            raise
        except Exception as error:
            log.error("a handler failed", agent=self.handler.name, why=place_of(error), **coordinates(record))
            raise RecordError(Reason.AGENT_FAILED, f"{self.handler.name} raised {type(error).__name__}") from error
