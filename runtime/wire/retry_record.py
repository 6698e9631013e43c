"""A request on its way through the topic of retries: what is written beside it, and read back. Pure.

Key, value and headers are the original's; the headers of `schemas.envelope.RETRY_HEADERS` say who is to answer it, not
before when, after how many attempts, and where the original lay. Route, request id, prediction id, `source` and the
partition of the result come from those coordinates, so that a retried result differs from a first one in its time alone.
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
    """Where a record lies. `timestamp` in milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Retry(NamedTuple):
    """What a record in the topic of retries says beside the original's bytes."""

    app: str
    original: Coordinates
    only_agent: str | None
    """The one agent that is asked; None: all that read the original's topic."""
    not_before: float
    """Seconds since 1970."""
    attempts: int
    """Made before this one."""


def retry_message(record: Record, retry: Retry, topic: str, partition: int | None = None) -> Message:
    """Return the record that asks for another attempt. `record` supplies key, value and headers.

    Headers of an earlier round are replaced. Headers that a producer cannot send (a null value) are kept empty.
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
    """Return what a record in the topic of retries says; RecordError `bad_header` where it is not one of ours."""
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
