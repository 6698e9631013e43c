"""Types of records: received, and to be published."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

Headers = tuple[tuple[str, bytes], ...]


class Record(Protocol):
    """The fields that are used of an aiokafka ConsumerRecord."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Message(NamedTuple):
    """A record to publish. With `partition` None the key decides."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Publish:
    """A record for any topic, such as another agent's input. A dict is encoded as JSON; bytes are sent as they are."""

    topic: str
    value: bytes | dict[str, Any] | None
    key: bytes | str | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    """Added to the runtime's headers. Request id, cause, hops and traceparent cannot be overridden."""
    partition: int | None = None
    """None: chosen by key."""
    essential: bool = False
    """For handlers: when the broker refuses it for good, the process ends and the record is not finished. Otherwise a
    dead letter replaces it."""
    first: bool = False
    """For handlers: sent, and acknowledged, before the other messages of its record. What depends on more than the record
    and earlier states is written down so before it is acted on."""
    best_effort: bool = False
    """For handlers: dropped and counted when the broker refuses it."""
