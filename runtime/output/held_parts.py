"""Parts of records that wait for suspended agents, and the probes made with them."""

from dataclasses import dataclass, field
from typing import Protocol

from aiokafka.structs import TopicPartition

from ..errors import RecordError
from ..kafka.offset_tracker import OpenParts
from .delivery import Delivery
from .suspension import Held

HeldPart = Held[TopicPartition, Delivery]


class Releases(Protocol):
    """Handles parts that are no longer held. Implemented by the dispatcher."""

    def requeue(self, partition: TopicPartition, delivery: Delivery) -> None:
        """Queue a part for another attempt."""
        ...

    def dead_letter(self, delivery: Delivery, error: RecordError, agent: str) -> None:
        """Send the dead letter of a part."""
        ...

    def can_hold(self, partition: TopicPartition, size: int) -> bool:
        """Return whether a part fits into the share of the memory of its partition."""
        ...

    def resume(self) -> None:
        """Resume the work that waited for an agent."""
        ...


@dataclass(slots=True)
class Probe:
    under_way: dict[int, HeldPart]
    """By the identity of the delivery."""
    passed: list[HeldPart] = field(default_factory=list)
    failed: list[tuple[HeldPart, RecordError]] = field(default_factory=list)
    """Failed parts with the error of the dead letter that each becomes if the agent resumes."""
    refused: bool = False
    """A topic of the agent still refuses records: no part counts as passed."""
    retried: set[int] = field(default_factory=set)
    """Identities of the parts for which the agent asked for a retry."""
    expired: set[int] = field(default_factory=set)
    """Identities of the parts under way that are answered `expired`: they count neither as passed nor as failed."""

    def end(self, delivery: object) -> HeldPart | None:
        """Record that a part is answered, and return it; None when it is not part of this probe."""
        held = self.under_way.pop(id(delivery), None)
        if held is not None and id(delivery) not in self.expired | self.retried:
            self.passed.append(held)
        return held

    def end_failed(self, delivery: object, error: RecordError, *, refused: bool) -> bool:
        """Record that a part failed, or was `refused` by a topic; False when it is not part of this probe."""
        held = self.under_way.pop(id(delivery), None)
        if held is None:
            return False
        self.failed.append((held, error))
        self.refused |= refused
        return True

    @property
    def successes(self) -> int:
        """The number of parts that were answered. A retry counts where nothing else says how the agent does."""
        return len(self.passed) or (0 if self.failed else len(self.retried))

    @property
    def is_inconclusive(self) -> bool:
        """All of its parts expired."""
        return not (self.passed or self.failed or self.retried)


def split_off(delivery: Delivery, agent: str) -> Delivery:
    """Return a delivery of one agent's part; the record is finished when all its parts are."""
    if not isinstance(delivery.progress, OpenParts):
        delivery.progress = OpenParts(delivery.progress, 1)
    delivery.progress.add()
    attempt = delivery.attempt.next_one(agent, delivery.attempts)
    part = Delivery(delivery.record, delivery.progress, delivery.request, attempt)
    part.route, part.chosen, part.current_only = delivery.route, delivery.chosen, delivery.current_only
    part.asked = tuple(asked for asked in delivery.asked if asked[0].agent.name == agent)
    return part
