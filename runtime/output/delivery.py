"""A delivered record until it is finished, and the agents and tasks that answer it."""

from typing import Any, Final, NamedTuple

from aiokafka.structs import ConsumerRecord, TopicPartition

from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.experiment import Unit
from ..agent.routes import Asked, Route
from ..errors import RecordError
from ..experiments.assignment import Side
from ..experiments.observations import find_unit
from ..experiments.unit_assignment import Assignment
from ..kafka.offset_tracker import CompletionSink
from ..model.inputs import Input, choose_input, missing_pair
from ..observe.tracing import Span, Tracing
from ..wire.request import Incoming
from .bounds import held_bytes


class Attempt(NamedTuple):
    """The number of an attempt and its limits. All first attempts share one object."""

    number: int = 1
    only_agent: str | None = None
    """The only agent that is asked; None: all that read the topic."""
    answered: frozenset[str] = frozenset()
    """Agents that have answered the record and are not asked again."""
    read_from: TopicPartition | None = None
    """The partition of the topic of retries from which it was read; None: the record's own."""

    def next_one(self, agent: str, number: int) -> "Attempt":
        """Return an attempt that asks one agent."""
        return self._replace(number=number, only_agent=agent, answered=frozenset())


FIRST_ATTEMPT: Final = Attempt()


class Chosen(NamedTuple):
    """An experiment, the side of it that answers a record, and what its units are."""

    experiment: str
    side: Side
    unit: Unit


class Delivery:
    """A record, the request parsed from it, and the progress object to report its completion to.

    `record` has the coordinates that results and dead letters name.
    """

    __slots__ = (
        "asked",
        "attempt",
        "bytes",
        "chosen",
        "current_only",
        "progress",
        "record",
        "request",
        "route",
        "span",
    )

    asked: Asked
    """The agents that answer, each with its tasks."""
    route: Route

    def __init__(
        self, record: ConsumerRecord, progress: CompletionSink, request: Incoming, attempt: Attempt = FIRST_ATTEMPT
    ) -> None:
        self.record = record
        self.progress = progress
        self.request = request
        self.attempt = attempt
        self.current_only = False
        """Whether the candidate of the experiment has failed on it, so that the current version answers it."""
        self.chosen: Chosen | None = None
        """The side that answers while an experiment runs; parts of the record have the same."""
        self.bytes = held_bytes(record, request.text, request.text_pair)
        """Bytes that it occupies in memory."""
        self.span: Span | None = None
        """Set when the record is traced."""

    @property
    def attempts(self) -> int:
        """The number of attempts, including this one."""
        return self.attempt.number

    @property
    def partition(self) -> TopicPartition:
        """The partition from which it was read, which is not committed past it: that of a retry is not its record's."""
        return self.attempt.read_from or TopicPartition(self.record.topic, self.record.partition)

    def choose_side(self, assignment: Assignment) -> Side:
        """Return the side of an experiment that answers. It stays, also when the share is raised before another attempt."""
        if self.chosen is None or self.chosen.experiment != assignment.experiment:
            request = self.request
            side = assignment.choose_side(request.key, request.request_id, request.metadata or {})
            self.chosen, self.current_only = Chosen(assignment.experiment, side, assignment.unit), False
        return self.chosen.side

    def find_unit(self) -> str | None:
        """Return the unit of the experiment that it belongs to; None where it belongs to none."""
        request = self.request
        if self.chosen is None:
            return None
        return find_unit(self.chosen.unit, request.key, request.request_id, request.metadata or {})

    def settle(self, route: Route) -> None:
        """Choose agents and tasks: all agents with their own tasks, or those that a request or a retry names.

        Without a second text, tasks that read two are not asked by default. Raises RecordError `invalid` where one is named,
        and for a second text that no task of the model reads; `unknown_task` when no agent on the topic answers a task, `agent_failed` when the agent that
        a retry names does not read the topic.
        """
        self.route = route
        self._choose_asked(route)
        if route.pair_tasks or self.request.text_pair is not None:
            self._check_pair(route)

    def _choose_asked(self, route: Route) -> None:
        tasks, (_, only_agent, answered, _) = self.request.tasks, self.attempt
        if tasks is None and only_agent is None and not answered:
            self.asked = route.asked
            return
        if tasks is not None:
            self._check_tasks(tasks, route)
        left = (bound for bound in route.agents if bound.agent.name not in answered)
        asked = ((bound, bound.select_tasks(tasks)) for bound in left if only_agent in {None, bound.agent.name})
        self.asked = tuple((bound, asked_for) for bound, asked_for in asked if asked_for)
        if not self.asked:
            problem = (
                "no agent is left that answers it" if only_agent is None else f"agent {only_agent} answers none of it"
            )
            raise RecordError(Reason.AGENT_FAILED, f"{problem} on {route.topic} here")

    def _check_pair(self, route: Route) -> None:
        request, pair_tasks = self.request, route.pair_tasks
        if request.text_pair is not None:
            if not pair_tasks:
                raise RecordError(Reason.INVALID, "`text_pair` is given, but no task of the model reads two texts")
            return
        if not pair_tasks.isdisjoint(request.tasks or ()):
            raise missing_pair(request.tasks or (), pair_tasks)
        asked = []
        for bound, tasks in self.asked:
            left = tuple(task for task in tasks if task not in pair_tasks)
            if bound.agent.tasks and len(left) < len(tasks):
                raise missing_pair(tasks, pair_tasks)
            if left:
                asked.append((bound, left))
        if not asked:
            raise missing_pair(self.tasks(), pair_tasks)
        self.asked = self.asked if asked == [*self.asked] else tuple(asked)

    @staticmethod
    def _check_tasks(tasks: tuple[str, ...], route: Route) -> None:
        for number, task in enumerate(tasks, 1):
            if not any(task in bound.answerable for bound in route.agents):
                # The name is the request's own text: it is not quoted.
                answered = ", ".join(sorted(frozenset[str]().union(*(bound.answerable for bound in route.agents))))
                raise RecordError(
                    Reason.UNKNOWN_TASK,
                    f"no agent on {route.topic} answers task {number} of the {len(tasks)} named; answered are {answered}",
                )

    def trace(self, tracing: Tracing) -> None:
        """Start the record's span if it is sampled; messages published for the record are its children."""
        request = self.request
        self.span = tracing.begin(self.record, request.request_id, request.traceparent)
        if self.span is not None:
            request.traceparent = self.span.traceparent

    @property
    def given(self) -> Input:
        """What the tasks read: the text, the second one with it, or both."""
        second = self.request.text_pair
        if second is None:
            return self.request.text
        return choose_input(self.request.text, second, self.tasks(), self.route.pair_tasks)

    def tasks(self) -> tuple[str, ...]:
        """Return the tasks that one forward pass must answer for all asked agents."""
        if self.asked is self.route.asked:
            return self.route.tasks
        return tuple(dict.fromkeys(task for _, tasks in self.asked for task in tasks))


class Rejected:
    """A delivered record that no agent can answer. It waits in the queue like any other, then its dead letter is sent.

    Stores reason and message, not the error: the error's traceback would keep frames alive.
    """

    attempts = 1
    __slots__ = ("bytes", "message", "progress", "reason", "record", "request")

    def __init__(
        self, record: ConsumerRecord, progress: CompletionSink, request: Incoming | None, error: RecordError
    ) -> None:
        self.record = record
        self.progress = progress
        self.request = request
        """The part of the request that could be parsed."""
        self.reason = error.reason
        self.message = str(error)
        self.bytes = held_bytes(record, *(() if request is None else (request.text, request.text_pair)))

    @property
    def error(self) -> RecordError:
        return RecordError(self.reason, self.message)


def coordinates(record: ConsumerRecord) -> dict[str, Any]:
    """Return a record's coordinates for a log line."""
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}
