"""Records of the topic of retries: written and parsed. Pure.

Key, value and headers are the original's. The headers `schemas.envelope.RETRY_HEADERS` add the agent to ask, the
earliest time, the attempts so far and the original's coordinates. Route, request id, prediction id, `source` and the
partition of the result come from those coordinates, so that a retried result differs from a first one only in its time.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.envelope import (
    APP,
    ATTEMPTS,
    NOT_BEFORE,
    ONLY_AGENT,
    ORIGINAL_OFFSET,
    ORIGINAL_PARTITION,
    ORIGINAL_TIMESTAMP,
    ORIGINAL_TOPIC,
    RETRY_HEADERS,
)
from ..errors import RecordError
from .message import Message, Record


class Coordinates(NamedTuple):
    """The coordinates of a record. `timestamp` in milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Retry(NamedTuple):
    """The retry headers of a record in the topic of retries."""

    app: str
    original: Coordinates
    only_agent: str | None
    """The only agent that is asked; None: all that read the original's topic."""
    not_before: float
    """Unix time in seconds."""
    attempts: int
    """The number of attempts made so far."""


def retry_message(record: Record, retry: Retry, topic: str, partition: int | None = None) -> Message:
    """Return the record that requests another attempt. `record` supplies key, value and headers.

    Headers of earlier attempts are replaced. Headers that a producer cannot send (a null value) become empty.
    """
    due = datetime.fromtimestamp(retry.not_before, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    named = {
        APP: retry.app,
        ONLY_AGENT: retry.only_agent,
        NOT_BEFORE: due,
        ATTEMPTS: retry.attempts,
        ORIGINAL_TOPIC: retry.original.topic,
        ORIGINAL_PARTITION: retry.original.partition,
        ORIGINAL_OFFSET: retry.original.offset,
        ORIGINAL_TIMESTAMP: retry.original.timestamp,
    }
    headers = [(name, raw or b"") for name, raw in record.headers if name not in RETRY_HEADERS]
    headers += [(name, str(value).encode()) for name, value in named.items() if value is not None]
    return Message(topic, record.value, record.key, headers, partition)


def read_retry(record: Record) -> Retry:
    """Parse the headers of a record in the topic of retries. Raises RecordError `bad_header` for a foreign record."""
    found = {name: raw for name, raw in record.headers if name in RETRY_HEADERS}
    try:
        text = {name: raw.decode() for name, raw in found.items()}
        coordinates = Coordinates(
            text[ORIGINAL_TOPIC],
            int(text[ORIGINAL_PARTITION]),
            int(text[ORIGINAL_OFFSET]),
            int(text[ORIGINAL_TIMESTAMP]),
        )
        due = datetime.fromisoformat(text[NOT_BEFORE]).timestamp()
        return Retry(text[APP], coordinates, text.get(ONLY_AGENT), due, int(text[ATTEMPTS]))
    except KeyError as error:
        raise RecordError(Reason.BAD_HEADER, f"header {error.args[0]} is missing") from None
    except (ValueError, AttributeError, OverflowError):
        raise RecordError(Reason.BAD_HEADER, "a header of the retry cannot be read") from None
