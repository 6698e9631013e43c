"""Parses a Kafka record into a request. Every problem is a RecordError with its reason."""

from collections.abc import Set
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.envelope import (
    CE_ID,
    CE_SOURCE,
    DEADLINE,
    HOPS,
    READ_HEADERS,
    REQUEST_HEADERS,
    REQUEST_ID,
    TRACEPARENT,
)
from ...schemas.ids import default_request_id
from ..errors import RecordError
from ..field_paths import FieldPaths
from .message import Record
from .request_body import check_id, read_body, read_event, read_id, value_format


class Incoming:
    """One request as an agent sees it: its fields, and its record.

    `text_pair` is the second text of a request that has one. `request_id` is never empty. `source` is the record's `ce_source`, else its topic. `value` and `headers` are the
    record's bytes; `is_plain`: the value has the request's fields at the top, as `docs/wire.md` describes. `deadline`: seconds since 1970 after which its sender wants
    no answer; None: no deadline.
    """

    __slots__ = (
        "deadline",
        "headers",
        "hops",
        "is_plain",
        "key",
        "metadata",
        "offset",
        "partition",
        "request_id",
        "source",
        "tasks",
        "text",
        "text_pair",
        "timestamp",
        "topic",
        "traceparent",
        "value",
    )

    def __init__(
        self,
        text: str,
        *,
        request_id: str,
        topic: str = "test",
        partition: int = 0,
        offset: int = 0,
        timestamp: int = 0,
        key: bytes | None = None,
        value: bytes = b"",
        headers: tuple[tuple[str, bytes], ...] = (),
        tasks: tuple[str, ...] | None = None,
        metadata: dict[str, str] | None = None,
        source: str | None = None,
        traceparent: bytes | None = None,
        hops: int = 0,
        deadline: float | None = None,
        is_plain: bool = True,
        text_pair: str | None = None,
    ) -> None:
        self.text = text
        self.text_pair = text_pair
        self.request_id = request_id
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.timestamp = timestamp
        self.key = key
        self.value = value
        self.headers = headers
        self.tasks = tasks
        self.metadata = metadata
        self.source = source or topic
        self.traceparent = traceparent
        self.hops = hops
        self.deadline = deadline
        self.is_plain = is_plain

    def plain_value(self) -> bytes:
        """Return a value with the request's fields at the top: the record's own where it is one."""
        if self.is_plain:
            return self.value
        fields = {"text": self.text, "id": self.request_id, "tasks": self.tasks, "metadata": self.metadata}
        fields["text_pair"] = self.text_pair
        return _encode({name: found for name, found in fields.items() if found is not None})


_encode: Final = msgspec.json.Encoder().encode
_IDS: Final = frozenset({REQUEST_ID, CE_ID})


def read_request(
    record: Record, max_value_bytes: int, max_hops: int | None = None, fields: FieldPaths | None = None
) -> Incoming:
    """Parse the request in a record. Raises RecordError when it cannot be answered.

    `fields`: the paths of the request's fields in the topic's values; None: top level.
    """
    value = record.value
    if value is None:
        raise RecordError(Reason.NO_VALUE, "the record has no value")
    if len(value) > max_value_bytes:
        raise RecordError(Reason.TOO_LARGE, f"the value has {len(value)} bytes, at most {max_value_bytes} are read")
    is_plain = fields is None
    if record.headers:
        stated = value_format(record.headers)
        names, data = _read_envelope(record, value, max_hops, is_event=stated == "event")
        if stated == "request":
            fields = None
        is_plain = fields is None and stated != "event"
        body = read_body(data, fields)
    else:
        body = read_body(value, fields)
        names = Names(None, record.topic, None, 0)
    request_id = names.request_id or body.id
    if request_id is None:
        request_id = default_request_id(record.topic, record.partition, record.offset, record.timestamp)
    return Incoming(
        body.text,
        request_id=request_id,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        key=record.key,
        value=value,
        headers=record.headers,
        tasks=None if body.tasks is None else tuple(dict.fromkeys(body.tasks)),
        metadata=body.metadata,
        source=names.source,
        traceparent=names.traceparent,
        hops=names.hops,
        deadline=names.deadline,
        is_plain=is_plain,
        text_pair=body.text_pair,
    )


class Names(NamedTuple):
    """Attributes of a request from the headers, or from a CloudEvent in structured mode."""

    request_id: str | None
    source: str
    traceparent: bytes | None
    hops: int
    deadline: float | None = None


def _read_envelope(record: Record, value: bytes, max_hops: int | None, *, is_event: bool) -> tuple[Names, bytes]:
    """Return the attributes of a record with headers, and the bytes that hold the request's fields."""
    headers = read_headers(record.headers, REQUEST_HEADERS)
    hops = read_hops(headers.get(HOPS), max_hops)
    deadline = read_deadline(headers.get(DEADLINE))
    request_id, trace = headers.get(REQUEST_ID), headers.get(TRACEPARENT)
    event_id, source = headers.get(CE_ID), headers.get(CE_SOURCE)
    if is_event:
        event, value = read_event(value)
        check_id(event.id, Reason.INVALID, "the event's `id`")
        event_id, source, trace = event.id, event.source, trace or event.traceparent
    traceparent = None if trace is None else trace.encode()
    return Names(request_id or event_id, source or record.topic, traceparent, hops, deadline), value


def read_headers(headers: Any, names: Set[str] = READ_HEADERS) -> dict[str, str]:
    """Decode the headers of these names. Raises RecordError `bad_header` for one that is null or not UTF-8."""
    read: dict[str, str] = {}
    for name, raw in headers:
        if name not in names:
            continue
        if raw is None:
            raise RecordError(Reason.BAD_HEADER, f"header {name} is null")
        try:
            read[name] = raw.decode()
        except UnicodeDecodeError:
            raise RecordError(Reason.BAD_HEADER, f"header {name} is not UTF-8") from None
        if name in _IDS:
            check_id(read[name], Reason.BAD_HEADER, f"header {name}")
    return read


def names_of(record: Record) -> tuple[str, bytes | None]:
    """Return request id and `traceparent` of a rejected record, as far as its headers can be decoded."""
    found: dict[str, str] = {}
    for name, raw in record.headers or ():
        if name in READ_HEADERS and raw is not None:
            with suppress(UnicodeDecodeError):
                found[name] = raw.decode()
    request_id = found.get(REQUEST_ID) or found.get(CE_ID)
    if request_id is None:
        request_id = default_request_id(record.topic, record.partition, record.offset, record.timestamp)
    trace = found.get(TRACEPARENT)
    return request_id, None if trace is None else trace.encode()


def read_hops(text: str | None, most: int | None = None) -> int:
    """Return the hop count of a header, 0 without one. Raises RecordError `hop_limit` when it is above `most`."""
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise RecordError(Reason.BAD_HEADER, f"header {HOPS} is not a count")
    hops = int(text)
    if most is not None and hops > most:
        raise RecordError(Reason.HOP_LIMIT, f"handed on {hops} times, at most {most}: do agents hand on in a circle?")
    return hops


_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_SECOND: Final = slice(17, 19)
"""Where the seconds of a time stand: `2026-01-05T09:40:SS`."""


def read_deadline(text: str | None) -> float | None:
    """Return the time in the header of the deadline, in seconds since 1970; None without one.

    Raises RecordError `bad_header` for a text that is not RFC 3339 with a zone.
    """
    if text is None:
        return None
    is_leap = text[_SECOND] == "60"
    named = f"{text[: _SECOND.start]}59{text[_SECOND.stop :]}" if is_leap else text
    try:
        return msgspec.convert(named, _Time).timestamp() + is_leap
    except msgspec.ValidationError:
        raise RecordError(Reason.BAD_HEADER, f"header {DEADLINE} is not a time with a zone (RFC 3339)") from None


def read_id_in_body(record: Record, max_bytes: int, fields: FieldPaths | None = None) -> str | None:
    """Return the `id` in a record's body; None where there is none. Errors are reported when the body is parsed.

    `fields`: the field paths of its topic; a CloudEvent in structured mode has its `id` at the top.
    """
    value = record.value
    if value is None or len(value) > max_bytes:
        return None
    try:
        if fields is not None and value_format(record.headers or ()) is not None:
            fields = None
        return read_id(value, fields)
    except RecordError:
        return None
