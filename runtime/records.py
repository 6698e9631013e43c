"""From a Kafka record to a request: decode, check, name. Whatever is wrong with it is a RecordError with its reason.

Plain structs instead of pydantic, because this runs for every record; a test holds both to the same answers.
"""

from contextlib import suppress
from typing import Any, Protocol

import msgspec

from ..schemas.deadletter import DeadLetterReason as Reason
from ..schemas.envelope import CE_ID, CE_SOURCE, HOPS, READ_HEADERS, REQUEST_ID, TRACEPARENT
from ..schemas.ids import default_request_id
from ..schemas.request import MAX_METADATA
from .agent import Incoming
from .errors import RecordError

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


class _Body(msgspec.Struct):
    text: str
    tasks: list[str] | None = None
    id: str | None = None
    metadata: dict[str, str] | None = None
    text_pair: None = None


_decode_body = msgspec.json.Decoder(_Body).decode


def read_request(record: Record, max_value_bytes: int, max_hops: int | None = None) -> Incoming:
    """Return the request in a record; RecordError when it cannot be answered."""
    value = record.value
    if value is None:
        raise RecordError(Reason.NO_VALUE, "the record has no value")
    if len(value) > max_value_bytes:
        raise RecordError(Reason.TOO_LARGE, f"the value has {len(value)} bytes, at most {max_value_bytes} are read")
    body = _read_body(value)
    headers = read_headers(record.headers) if record.headers else None
    request_id = body.id
    if headers is None:
        source, traceparent, hops = record.topic, None, 0
    else:
        request_id = headers.get(REQUEST_ID) or headers.get(CE_ID) or body.id
        source = headers.get(CE_SOURCE) or record.topic
        trace = headers.get(TRACEPARENT)
        traceparent = None if trace is None else trace.encode()
        hops = read_hops(headers.get(HOPS), max_hops)
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
        source=source,
        traceparent=traceparent,
        hops=hops,
    )


def _read_body(value: bytes) -> _Body:
    try:
        body = _decode_body(value)
    except UnicodeDecodeError:
        raise RecordError(Reason.NOT_UTF8, "the value is not UTF-8") from None
    except msgspec.ValidationError as error:
        # msgspec's message names the path and the types, never the value.
        raise RecordError(Reason.INVALID, str(error)) from None
    except msgspec.DecodeError:
        raise _why_not_json(value) from None
    except RecursionError:
        raise RecordError(Reason.INVALID, "the value is nested too deeply") from None
    if not body.text or body.text.isspace():
        raise RecordError(Reason.INVALID, "`text` is empty")
    if body.id == "":
        raise RecordError(Reason.INVALID, "`id` is empty")
    if body.tasks is not None and (not body.tasks or "" in body.tasks):
        raise RecordError(Reason.INVALID, "`tasks` is empty or has an empty name")
    if body.metadata is not None and len(body.metadata) > MAX_METADATA:
        raise RecordError(Reason.INVALID, f"`metadata` has {len(body.metadata)} entries, at most {MAX_METADATA}")
    return body


def _why_not_json(value: bytes) -> RecordError:
    try:
        value.decode()
    except UnicodeDecodeError:
        return RecordError(Reason.NOT_UTF8, "the value is not UTF-8")
    return RecordError(Reason.NOT_JSON, "the value is not JSON (a lone surrogate and NaN are not either)")


def read_headers(headers: Any) -> dict[str, str]:
    """Return the headers that we read, as text; RecordError `bad_header` for one that is null or not UTF-8."""
    read: dict[str, str] = {}
    for name, raw in headers:
        if name not in READ_HEADERS:
            continue
        if raw is None:
            raise RecordError(Reason.BAD_HEADER, f"header {name} is null")
        try:
            read[name] = raw.decode()
        except UnicodeDecodeError:
            raise RecordError(Reason.BAD_HEADER, f"header {name} is not UTF-8") from None
    return read


def names_of(record: Record) -> tuple[str, bytes | None]:
    """Return request id and `traceparent` of a record that was refused, as far as its headers can be read."""
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
    """Return the count in the header of hops, 0 without one; RecordError `hop_limit` when it is above `most`."""
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise RecordError(Reason.BAD_HEADER, f"header {HOPS} is not a count")
    hops = int(text)
    if most is not None and hops > most:
        raise RecordError(Reason.HOP_LIMIT, f"handed on {hops} times, at most {most}: do agents hand on in a circle?")
    return hops
