"""What goes in and out: a record as it is read, and one to publish."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

Headers = tuple[tuple[str, bytes], ...]


class Record(Protocol):
    """What is read of an aiokafka ConsumerRecord."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Message(NamedTuple):
    """A record to publish. `partition` None leaves the choice to the key."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Publish:
    """A record for any topic, another agent's input among them. A dict becomes JSON; bytes go out as they are."""

    topic: str
    value: bytes | dict[str, Any] | None
    key: bytes | str | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    """Added to those that every record handed on has. Request id, cause, hops and traceparent stay the runtime's."""
    partition: int | None = None
    """Default: by the key."""
    essential: bool = False
    """Of a handler: when the broker will never take it, the process ends and the record is not finished. Otherwise a
    dead letter takes its place."""
