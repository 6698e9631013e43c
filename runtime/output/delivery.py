"""A delivered record until it is finished, and who answers what of it."""

from typing import Any, Final, NamedTuple

from aiokafka.structs import ConsumerRecord

from ...schemas.deadletter import DeadLetterReason as Reason
from ..agent.routes import Asked, Route
from ..errors import RecordError
from ..kafka.offset_tracker import NotesFinished
from ..observe.tracing import Span, Tracing
from ..wire.request import Incoming
from .bounds import held_bytes


class Attempt(NamedTuple):
    """Which attempt a delivery is, and what limits it. One object is shared by all first attempts."""

    number: int = 1
    only_agent: str | None = None
    """The one agent that is asked; None: all that read the topic."""
    deadline: float | None = None
    """Seconds since 1970 after which the record is not computed any more; None: never."""


FIRST_ATTEMPT: Final = Attempt()


class Delivery:
    """The record itself, the request in it, and where to note that it is finished.

    `record` has the coordinates that results and dead letters name. `progress` notes that it is finished.
    """

    __slots__ = ("asked", "attempt", "bytes", "progress", "record", "request", "route", "span")

    asked: Asked
    """The agents that answer, each with its tasks."""
    route: Route

    def __init__(
        self, record: ConsumerRecord, progress: NotesFinished, request: Incoming, attempt: Attempt = FIRST_ATTEMPT
    ) -> None:
        self.record = record
        self.progress = progress
        self.request = request
        self.attempt = attempt
        self.bytes = held_bytes(record, request.text)
        """What it costs in memory while it is held."""
        self.span: Span | None = None
        """Where the record is traced."""

    @property
    def attempts(self) -> int:
        """Made at the record, this one among them."""
        return self.attempt.number

    def settle(self, route: Route) -> None:
        """Say who answers what: all agents their own tasks, or those that a request or a retry names.

        Raises RecordError `unknown_task` when nobody on the topic answers a task, `agent_failed` when the agent that a
        retry names does not read the topic.
        """
        self.route = route
        tasks, only_agent = self.request.tasks, self.attempt.only_agent
        if tasks is None and only_agent is None:
            self.asked = route.asked
            return
        if tasks is not None:
            self._check_tasks(tasks, route)
        asked = ((bound, bound.asked(tasks)) for bound in route.agents if only_agent in {None, bound.agent.name})
        self.asked = tuple((bound, answered) for bound, answered in asked if answered)
        if not self.asked:
            raise RecordError(Reason.AGENT_FAILED, f"agent {only_agent} answers none of it on {route.topic} here")

    @staticmethod
    def _check_tasks(tasks: tuple[str, ...], route: Route) -> None:
        for number, task in enumerate(tasks, 1):
            if not any(task in bound.may for bound in route.agents):
                # The name is the request's own text: it is not quoted.
                answered = ", ".join(sorted(frozenset[str]().union(*(bound.may for bound in route.agents))))
                raise RecordError(
                    Reason.UNKNOWN_TASK,
                    f"no agent on {route.topic} answers task {number} of the {len(tasks)} named; answered are {answered}",
                )

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


class Rejected:
    """A delivered record that nobody answers. It waits for its turn like any other, then its dead letter is sent.

    Reason and message stand here instead of the error, which would keep the frames alive that it was raised in.
    """

    attempts = 1
    __slots__ = ("bytes", "message", "progress", "reason", "record", "request")

    def __init__(
        self, record: ConsumerRecord, progress: NotesFinished, request: Incoming | None, error: RecordError
    ) -> None:
        self.record = record
        self.progress = progress
        self.request = request
        """What could be read of it."""
        self.reason = error.reason
        self.message = str(error)
        self.bytes = held_bytes(record, None if request is None else request.text)

    @property
    def error(self) -> RecordError:
        return RecordError(self.reason, self.message)


def coordinates(record: ConsumerRecord) -> dict[str, Any]:
    """Return a record's coordinates for a log line."""
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}
