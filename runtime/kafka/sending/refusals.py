"""Decides which refusals of the broker are final, their scope, and what those that are not final stop meanwhile."""

import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Final

from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError, UnknownTopicOrPartitionError

from ...errors import DeliveryError, ProcessRefused, RecordRefused, RecordTooLarge, TopicRefused
from ...wire.message import Message
from .scopes import POISON, UNKNOWN, Place, Scope, is_of_kafka, scope_of
from .send_attempt import Failures

_UNKNOWN_TRIES: Final = 5


class Refusals:
    """State of the messages that failed in one call: which must be sent alone, how often and since when they fail.

    Invariants:
    - a failure of the broker is retried without limit and stops intake; one of the process for at most `give_up_s`;
    - an error that the client does not know is tried five times, each message alone, while intake goes on. Then it is
      the message's own if others to its topic were acknowledged meanwhile, and the topic's if others to other topics
      were and the topic is one of `declared`. Otherwise it is tried again like a failure of the process, and stops
      intake if nothing at all was acknowledged meanwhile.
    """

    def __init__(
        self,
        taken: Counter[str],
        *,
        declared: Container[str] = (),
        give_up_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`taken` counts acknowledged batches by topic. `declared`: topics whose refusal only concerns their agents."""
        self._taken, self._before = taken, Counter(taken)
        self._declared, self._give_up_s, self._clock = declared, give_up_s, clock
        self._tries: Counter[int] = Counter()
        self._since: dict[int, float] = {}
        """By position: when an error that is not retried without limit was first met."""
        self.alone: set[int] = set()
        self.pauses = False
        """Whether to wait before the next attempt."""
        self.stops_intake = False
        self.trouble: str | None = None
        """The failure that ends the process when it lasts; None where there is none."""

    def decide(self, messages: Sequence[Message], failures: Failures, decided: list[DeliveryError | None]) -> list[int]:
        """Store the final refusals in `decided`, and return the positions of the messages to retry."""
        self.pauses = self.stops_intake = False
        self.trouble = None
        again = []
        for position, error in failures.items():
            decided[position] = self._decide(position, messages[position], error)
            if decided[position] is None:
                again.append(position)
        return again

    def _decide(self, position: int, message: Message, error: BaseException | None) -> DeliveryError | None:
        if error is not None and not is_of_kafka(error):
            return error if isinstance(error, DeliveryError) else RecordRefused(f"it cannot be sent: {_name(error)}")
        if isinstance(error, UNKNOWN):
            return self._decide_unknown(position, message, error)
        scope = Scope.BROKER if error is None else scope_of(error, Place.SEND)
        if error is None or scope is Scope.BROKER:
            self.pauses = self.stops_intake = True
            if not isinstance(error, POISON):  # a producer was replaced: it says nothing about the broker
                self._since.pop(position, None)  # the time that the broker is away does not count
            return None
        return self._decide_by_scope(scope, position, message, error)

    def _decide_by_scope(
        self, scope: Scope, position: int, message: Message, error: BaseException
    ) -> DeliveryError | None:
        if scope is Scope.TOPIC:
            return TopicRefused(f"topic {message.topic}: {_name(error)}")
        if scope is Scope.PROCESS:
            self.stops_intake = True
            what = f"the broker takes nothing from this process: {_name(error)}"
            return self._persist(position, what, "look at this user's permissions and the broker's version")
        return self._decide_record(position, error)

    def _decide_record(self, position: int, error: BaseException) -> DeliveryError | None:
        if position not in self.alone:
            # A broker refuses a whole batch because of one record.
            self.alone.add(position)
            return None
        if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
            return RecordTooLarge("the broker takes no record of this size")
        return RecordRefused(f"the broker refuses it: {_name(error)}")

    def _decide_unknown(self, position: int, message: Message, error: BaseException) -> DeliveryError | None:
        self.pauses = True
        self.alone.add(position)
        self._since.setdefault(position, self._clock())
        self._tries[position] += 1
        if self._tries[position] < _UNKNOWN_TRIES:
            return None
        name, topic = _name(error), message.topic
        if self._taken[topic] > self._before[topic]:
            return RecordRefused(f"the broker refuses it: {name}")
        broker_accepts = self._taken.total() > self._before.total()
        if broker_accepts and topic in self._declared:
            return TopicRefused(f"topic {topic}: {name}")
        self.stops_intake |= not broker_accepts
        return self._persist(
            position,
            f"topic {topic} answers a message with {name}, and no other message to it was acknowledged meanwhile",
            "look at the broker's log; `murmura deadletters put` sets a single record aside",
        )

    def _persist(self, position: int, what: str, advice: str) -> ProcessRefused | None:
        """Return the refusal that ends the process once a message has failed for `give_up_s`."""
        self.pauses = True
        self.trouble = what
        failing_s = self._clock() - self._since.setdefault(position, self._clock())
        if failing_s < self._give_up_s:
            return None
        return ProcessRefused(f"{what}, for {self._give_up_s:g} s now; {advice}; nothing of what waits was committed")


def _name(error: BaseException) -> str:
    return "it is not there" if isinstance(error, UnknownTopicOrPartitionError) else type(error).__name__
