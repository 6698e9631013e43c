"""Runs a handler with a deadline for each record. The deadline is paused while the handler waits for the model, or for others."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from aiokafka.structs import ConsumerRecord

from ....schemas.acts import Act, Utterance
from ....schemas.deadletter import DeadLetterReason as Reason
from ...agent.handler import Handler, Predicts, Served
from ...agent.prediction import Prediction
from ...agent.result_envelope import Variant
from ...errors import RecordError
from ...model.generated import Generated
from ...model.vectors import Embedded
from ...wire.message import Publish


async def handle_in_time(
    handler: Handler, record: ConsumerRecord, engine: Predicts, on_truncated: Callable[[str], None]
) -> list[Publish]:
    """Return what the handler publishes for a record.

    `on_truncated` is called with the record's topic if the model has read only a part of a text for it.
    Raises RecordError `agent_failed` when it runs past `handler.timeout_s`, or when something that it awaits is cancelled
    by anything but the caller. Other errors of the handler are raised unchanged.
    """
    try:
        async with asyncio.timeout(handler.timeout_s) as deadline:
            pausable = _PausableDeadline(deadline)
            published = [*await handler.handle(record, _UntimedEngine(engine, pausable))]
    except TimeoutError as error:
        if deadline.expired():
            raise _deadline_error(handler) from error
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        message = f"{handler.name} was cancelled while it handled the record"
        raise RecordError(Reason.AGENT_FAILED, message) from error
    if deadline.expired():  # it swallowed the cancellation
        raise _deadline_error(handler)
    if pausable.has_truncated:
        on_truncated(record.topic)
    return published


def _deadline_error(handler: Handler) -> RecordError:
    return RecordError(Reason.AGENT_FAILED, f"{handler.name} ran past its deadline of {handler.timeout_s:g} s")


class _PausableDeadline:
    """The deadline of one record, which is paused while something is awaited that has a deadline of its own."""

    __slots__ = ("_awaited", "_deadline", "_left_s", "has_truncated")

    def __init__(self, deadline: asyncio.Timeout) -> None:
        self._deadline = deadline
        self._awaited = 0
        self._left_s = 0.0
        self.has_truncated = False
        """Whether a text of an answer was truncated, older turns of a reply aside."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._awaited += 1
        if self._awaited == 1:
            self._pause()
        try:
            yield
        finally:
            self._awaited -= 1
            if not self._awaited:
                self._resume()

    def _pause(self) -> None:
        ends = self._deadline.when()
        if ends is not None:
            self._left_s = ends - asyncio.get_running_loop().time()
            self._reschedule(None)

    def _resume(self) -> None:
        if self._deadline.when() is None:
            self._reschedule(asyncio.get_running_loop().time() + self._left_s)

    def _reschedule(self, when: float | None) -> None:
        # The deadline has passed, or a task that outlives the handler asks for a prediction.
        with suppress(RuntimeError):
            self._deadline.reschedule(when)


class _UntimedEngine:
    """The engine given to a handler: pauses the deadline while at least one answer of it is awaited, or `untimed` is open."""

    __slots__ = ("_deadline", "_engine")

    def __init__(self, engine: Predicts, deadline: _PausableDeadline) -> None:
        self._engine, self._deadline = engine, deadline

    @property
    def model(self) -> Served:
        return self._engine.model

    def on_side(self, variant: Variant) -> "_UntimedEngine":
        return _UntimedEngine(self._engine.on_side(variant), self._deadline)

    def untimed(self) -> AbstractContextManager[None]:
        return self._deadline.paused()

    async def predict(
        self,
        text: str,
        tasks: Iterable[str] | None = None,
        *,
        thresholds: Mapping[str, Any] | None = None,
        text_pair: str | None = None,
        with_vector: bool = False,
    ) -> Prediction:
        with self.untimed():
            found = await self._engine.predict(
                text, tasks, thresholds=thresholds, text_pair=text_pair, with_vector=with_vector
            )
        self._deadline.has_truncated |= found.truncated
        return found

    async def embed(self, text: str) -> Embedded:
        with self.untimed():
            return await self._engine.embed(text)

    async def generate(
        self,
        turns: Sequence[Utterance],
        acts: Sequence[Act],
        task: str,
        *,
        slots: Collection[str] | None = None,
        is_forbidden: Callable[[str], bool] | None = None,
        deadline: float | None = None,
    ) -> Generated:
        with self.untimed():
            found = await self._engine.generate(
                turns, acts, task, slots=slots, is_forbidden=is_forbidden, deadline=deadline
            )
        self._deadline.has_truncated |= found.cut
        return found
