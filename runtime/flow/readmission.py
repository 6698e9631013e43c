"""Requeues, sends or dead-letters parts of records that were held for a suspended agent or waited for a retry."""

from collections.abc import Callable, Mapping

from aiokafka.structs import TopicPartition

from ..agent.routes import Route
from ..errors import RecordError
from ..output.delivery import Delivery
from ..output.outbox import Outbox
from ..output.outcome import Outcome, Work
from .handlers.handler_runner import HandlerRunner
from .intake import Intake


class Readmission:
    """The dispatcher's interface for holders of parts of records (`Suspending` and `Retrying`)."""

    def __init__(
        self,
        intake: Intake,
        outbox: Outbox,
        *,
        routes: Mapping[str, Route],
        runners: Mapping[str, HandlerRunner],
        on_enter: Callable[[int], None],
        on_wake: Callable[[], None],
        on_resume: Callable[[], None],
    ) -> None:
        """`on_enter` counts records in progress. `on_wake` is called when a record waits, `on_resume` when paused work may
        continue.
        """
        self._intake, self._outbox = intake, outbox
        self.routes, self._runners = routes, runners
        self._on_enter, self._on_wake, self._on_resume = on_enter, on_wake, on_resume

    def requeue(self, partition: TopicPartition, delivery: Delivery) -> None:
        """Queue a part for another attempt."""
        self._intake.requeue(partition, delivery)
        self._on_wake()

    def dead_letter(self, delivery: Work, error: RecordError, agent: str | None) -> None:
        """Send the dead letter of a part."""
        outcome = Outcome()
        outcome.works.append(delivery)
        self._outbox.dead_letter(outcome, delivery.record, error, agent)
        self.send(outcome)

    def send(self, outcome: Outcome) -> None:
        """Send an outcome of one record."""
        self._on_enter(1)
        self._outbox.send(outcome)

    def resume(self) -> None:
        """Resume partitions with room and handlers with waiting records."""
        self._on_resume()

    def is_at_bound(self, partition: TopicPartition) -> bool:
        """Return whether a partition has reached its bound of uncommitted records."""
        return self._intake.is_at_bound(partition)

    def move_early(self) -> None:
        """Move handlers' pausing records to the topic of retries where their partition has reached that bound."""
        for runner in dict.fromkeys(self._runners.values()):
            runner.move_early(self._intake.is_at_bound)

    def can_hold(self, partition: TopicPartition, size: int) -> bool:
        """Return whether a part may wait for its agent or for another attempt within the share of its partition."""
        return self._intake.can_hold(partition, size)

    def has_room(self, partition: TopicPartition) -> bool:
        """Return whether a due record of a partition of the topic of retries may be queued."""
        active = sum(runner.active_bytes(partition) for runner in dict.fromkeys(self._runners.values()))
        return self._intake.has_room_for_retry(partition, active)

    def route(self, topic: str) -> Route | None:
        return self.routes.get(topic)

    def runner(self, topic: str) -> HandlerRunner | None:
        return self._runners.get(topic)
