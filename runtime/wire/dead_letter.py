"""Dead letters: the original record byte for byte, with the reason in headers. Cut only when the broker refuses it."""

from datetime import UTC, datetime
from hashlib import sha256
from typing import Protocol

from ...schemas.deadletter import BYTES, CUT, CUT_BYTES, PREFIX, SHA256, DeadLetter
from ...schemas.deadletter_spring import SPRING_HEADERS, spring_headers
from ..errors import RecordError
from .message import Headers, Message, Record


class MakeLetter(Protocol):
    """`dead_letter` with the arguments bound that are the same for all records of a process."""

    def __call__(
        self, record: Record, error: RecordError, topic: str, *, agent: str | None = None, attempts: int = 1
    ) -> Message: ...


def dead_letter(
    record: Record,
    error: RecordError,
    topic: str,
    *,
    agent: str | None = None,
    attempts: int = 1,
    app: str | None = None,
    spring_group: str | None = None,
) -> Message:
    """Return the dead letter of a record that could not be answered.

    Headers of the original that a producer cannot send (a null value) get an empty value. Earlier dead-letter headers
    are replaced, so that a redriven record that fails again names its last failure. `spring_group`: the consumer group
    for Spring Kafka's headers, which are written in addition; None: they are not added.
    """
    letter = DeadLetter(
        reason=error.reason,
        message=str(error),
        agent=agent,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        attempts=attempts,
        time=datetime.now(UTC),
        app=app,
    )
    added = letter.headers()
    if spring_group is not None:
        added += spring_headers(letter, spring_group)
    replaced = SPRING_HEADERS if spring_group is not None else ()
    headers = [
        (name, raw or b"") for name, raw in record.headers if not name.startswith(PREFIX) and name not in replaced
    ]
    return Message(topic, record.value, record.key, headers + added)


def cut(message: Message) -> Message:
    """Cut a dead letter that a broker refused as too large to the first 64 KiB of its value, with digest and size.

    Longer headers and keys are cut too. A letter that was cut before is returned unchanged.
    """
    if any(name == CUT for name, _ in message.headers):
        return message
    value = message.value or b""
    marks = [(CUT, b"1"), (SHA256, sha256(value).hexdigest().encode()), (BYTES, str(len(value)).encode())]
    own_headers: Headers = tuple((name, raw) for name, raw in message.headers if name.startswith(PREFIX))
    kept = list(message.headers)
    if sum(len(name) + len(raw) for name, raw in kept) > CUT_BYTES:
        kept = list(own_headers)
    key = message.key if message.key is None or len(message.key) <= CUT_BYTES else message.key[:CUT_BYTES]
    return Message(message.topic, value[:CUT_BYTES], key, kept + marks, message.partition)
