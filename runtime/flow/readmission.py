"""Takes parts of records back that were held, or waited for another attempt: a suspended agent's, and retries."""

from collections.abc import Callable, Mapping

from aiokafka.structs import TopicPartition

from ..agent.routes import Route
from ..batching.engine_port import EngineLike
from ..errors import RecordError
from ..output.delivery import Delivery
from ..output.outbox import Outbox
from ..output.outcome import Outcome, Work
from .handler_runner import HandlerRunner
from .intake import Intake, Queue


class Readmission:
    """The dispatcher, for who holds parts of records."""

    def __init__(
        self,
        intake: Intake,
        queue: Queue,
        outbox: Outbox,
        engine: EngineLike,
        *,
        routes: Mapping[str, Route],
        runners: Mapping[str, HandlerRunner],
        on_enter: Callable[[int], None],
        on_wake: Callable[[], None],
        on_go_on: Callable[[], None],
    ) -> None:
        """`on_enter` counts records that are under way. `on_wake`: something waits. `on_go_on`: something may go on that stood still."""
        self._intake, self._queue, self._outbox, self._engine = intake, queue, outbox, engine
        self.routes, self._runners = routes, runners
        self._on_enter, self._on_wake, self._on_go_on = on_enter, on_wake, on_go_on

    def admit_again(self, partition: TopicPartition, delivery: Delivery) -> None:
        """Queue a part for another attempt."""
        self._intake.requeue(partition, delivery, self._engine.model.manifest.limits.max_tokens)
        self._on_wake()

    def give_up(self, delivery: Work, error: RecordError, agent: str | None) -> None:
        """Send the dead letter of a part."""
        outcome = Outcome()
        outcome.works.append(delivery)
        self._outbox.dead_letter(outcome, delivery.record, error, agent)
        self.put_off(outcome)

    def put_off(self, outcome: Outcome) -> None:
        """Send the one message that stands for a record."""
        self._on_enter(1)
        self._outbox.send(outcome)

    def go_on(self) -> None:
        """Look again at what stood still."""
        self._on_go_on()

    def is_at_bound(self, partition: TopicPartition) -> bool:
        """Say whether no more of a partition is delivered before something of it is committed."""
        return self._intake.is_at_bound(partition)

    def has_room(self, partition: TopicPartition) -> bool:
        return not self._queue.is_full(partition)

    def route(self, topic: str) -> Route | None:
        return self.routes.get(topic)

    def runner(self, topic: str) -> HandlerRunner | None:
        return self._runners.get(topic)
