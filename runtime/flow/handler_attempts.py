"""A record's attempts with a handler: asked in place while its key waits, or put off through the topic of retries."""

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
from ..output.outcome import Given, Outcome, Outgoing
from ..output.result import hand_on
from ..output.suspending import Suspending
from ..wire.message import Message
from ..wire.request import read_headers, read_hops, read_id_in_body
from .handler_deadline import handle_in_time

log = get_logger(__name__)


class HandlerRetries(Protocol):
    """What decides on another attempt."""

    def asks(self, agent: str, error: BaseException | None) -> bool: ...
    def pause_s(self, agent: str, made: int, record: ConsumerRecord, error: BaseException | None) -> float: ...
    def message(self, record: ConsumerRecord, agent: str, pause_s: float, made: int) -> Outgoing | None: ...


class PutOff(MurmuraError):
    """The next attempt comes through the topic of retries."""


class HandlerAttempts:
    """Asks one handler, as often as it wants to be asked and may be.

    A pause in place counts as no work, and ends when the partitions are given up.
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
        """Let everybody who waits for another attempt go: the partitions are given up."""
        self._cleared.set()
        self._cleared = asyncio.Event()

    def notify(self, hook: Callable[..., None], *arguments: object) -> None:
        """Call a hook of the handler. One that raises suspends the handler, and changes nothing of the record."""
        try:
            hook(*arguments)
        except Exception as error:  # noqa: BLE001 - a hook of somebody else's
            self._suspending.suspend(self.handler.name, f"its hook {hook.__name__} failed: {place_of(error)}")

    async def _tried(
        self, record: ConsumerRecord, outcome: Outcome, is_assigned: Callable[[], bool]
    ) -> list[tuple[Message, bool]]:
        """Return what the handler publishes, after as many attempts as it asks for and has. Its key waits meanwhile."""
        while True:
            try:
                return await self._published(record, outcome)
            except RecordError as error:
                name, cause = self.handler.name, error.__cause__
                if self._retrying is None or not self._retrying.asks(name, cause):
                    raise
                made = outcome.attempts(record)
                pause_s = self._retrying.pause_s(name, made, record, cause)
                message = None
                if self.handler.ordering != "key" or record.key is None:
                    message = self._retrying.message(record, name, pause_s, made)
                if message is not None:
                    outcome.add(message)
                    raise PutOff from error
                await self._wait(pause_s, is_assigned)
                outcome.works[0] = Given(record, outcome.works[0].progress, made + 1)

    async def _wait(self, pause_s: float, is_assigned: Callable[[], bool]) -> None:
        """Wait for the next attempt; Closed when the partition is given up. It does not count as work meanwhile."""
        self._on_enter(-1)
        try:
            if is_assigned():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._cleared.wait(), pause_s)
        finally:
            self._on_enter(1)
        if not is_assigned():
            raise Closed("its partition was given up")

    async def published(
        self, record: ConsumerRecord, outcome: Outcome, is_assigned: Callable[[], bool]
    ) -> list[tuple[Message, bool]]:
        """Return what the handler publishes; it is asked again after a pause while most of its latest records fail."""
        name, suspending = self.handler.name, self._suspending
        while True:
            try:
                published = await self._tried(record, outcome, is_assigned)
            except RecordError as error:
                if error.reason is not Reason.AGENT_FAILED or not suspending.handler_failed(name, error):
                    raise
                self.notify(self.handler.given_up, record)
                self._on_enter(-1)  # it stands still for no fault of this process
                try:
                    await suspending.wait(name, suspending.why(name))
                finally:
                    self._on_enter(1)
            else:
                suspending.handler_answered(name)
                return published

    async def _published(self, record: ConsumerRecord, outcome: Outcome) -> list[tuple[Message, bool]]:
        """Return what the handler publishes for a record, and of each message whether it is essential."""
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
