"""A delivered record until it is finished, and who answers what of it."""

from typing import Any

from aiokafka.structs import ConsumerRecord

from ..schemas.deadletter import DeadLetterReason as Reason
from .agent import Incoming
from .errors import RecordError
from .routes import Asked, Route
from .tracing import Span, Tracing
from .tracker import Progress


class Work:
    """The record itself, the request in it, and where to note that it is finished."""

    __slots__ = ("asked", "progress", "record", "request", "route", "span")

    asked: Asked
    """The agents that answer, each with its tasks."""
    route: Route

    def __init__(self, record: ConsumerRecord, progress: Progress, request: Incoming) -> None:
        self.record = record
        self.progress = progress
        self.request = request
        self.span: Span | None = None
        """Where the record is traced."""

    def settle(self, route: Route) -> None:
        """Say who answers what: all agents their own tasks, or those that a request names.

        Raises RecordError `unknown_task` when nobody on the topic answers one of them.
        """
        self.route = route
        tasks = self.request.tasks
        if tasks is None:
            self.asked = route.asked
            return
        for task in tasks:
            if not any(task in bound.may for bound in route.agents):
                raise RecordError(Reason.UNKNOWN_TASK, f"no agent on {route.topic} answers task {task[:100]!r}")
        asked = ((bound, bound.asked(tasks)) for bound in route.agents)
        self.asked = tuple((bound, mine) for bound, mine in asked if mine)

    def trace(self, tracing: Tracing) -> None:
        """Begin the record's span if it is sampled; whatever is published for it is then the span's child."""
        request = self.request
        self.span = tracing.begin(self.record, request.request_id, request.traceparent)
        if self.span is not None:
            request.traceparent = self.span.traceparent

    def tasks(self) -> tuple[str, ...]:
        """Return the tasks that one forward pass has to answer for all of them."""
        if self.asked is self.route.asked:
            return self.route.tasks
        return tuple(dict.fromkeys(task for _, tasks in self.asked for task in tasks))


def where(record: ConsumerRecord) -> dict[str, Any]:
    """Return a record's coordinates for a log line."""
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}
