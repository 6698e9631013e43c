"""Decides which refusals of the broker are final, and their scope."""

from collections import Counter
from typing import Final

from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError, UnknownTopicOrPartitionError

from ..errors import DeliveryError, ProcessRefused, RecordRefused, RecordTooLarge, TopicRefused
from ..kafka.scopes import POISON, UNKNOWN, Place, Scope, is_of_kafka, scope_of
from ..wire.message import Message

_UNKNOWN_TRIES: Final = 5


class Refusals:
    """State of the messages that failed in one call: which must be sent alone, and how often that was tried."""

    def __init__(self, taken: Counter[str]) -> None:
        self._taken, self._before = taken, Counter(taken)
        self._tries: Counter[int] = Counter()
        self.alone: set[int] = set()

    def concerns_record(self, error: BaseException | None) -> bool:
        return error is not None and scope_of(error, Place.SEND) is Scope.RECORD

    def decide(self, position: int, message: Message, error: BaseException | None) -> DeliveryError | None:
        """Return a final refusal; None when the message must be retried."""
        if error is None or isinstance(error, POISON):
            return None
        if isinstance(error, UNKNOWN):
            return self._decide_unknown(position, message, error)
        if isinstance(error, DeliveryError):
            return error
        if not is_of_kafka(error):
            return RecordRefused(f"it cannot be sent: {type(error).__name__}")
        return self._decide_by_scope(position, message, error)

    def _decide_by_scope(self, position: int, message: Message, error: BaseException) -> DeliveryError | None:
        refusal: DeliveryError | None = None
        match scope_of(error, Place.SEND):
            case Scope.TOPIC:
                refusal = TopicRefused(f"topic {message.topic}: {_describe(error)}")
            case Scope.PROCESS:
                refusal = ProcessRefused(f"the broker takes nothing from this process: {type(error).__name__}")
            case Scope.RECORD if position not in self.alone:
                self.alone.add(position)
            case Scope.RECORD if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
                refusal = RecordTooLarge("the broker takes no record of this size")
            case Scope.RECORD:
                refusal = RecordRefused(f"the broker refuses it: {type(error).__name__}")
        return refusal

    def _decide_unknown(self, position: int, message: Message, error: BaseException) -> DeliveryError | None:
        """An unknown error is the message's own only if other messages to its topic pass meanwhile."""
        self.alone.add(position)
        self._tries[position] += 1
        others_pass = self._taken[message.topic] > self._before[message.topic]
        if self._tries[position] >= _UNKNOWN_TRIES and others_pass:
            return RecordRefused(f"the broker refuses it: {type(error).__name__}")
        return None


def _describe(error: BaseException) -> str:
    return "it is not there" if isinstance(error, UnknownTopicOrPartitionError) else type(error).__name__
