"""Parses a record's value into the fields of a request.

Accepts plain JSON, a CloudEvent in structured mode, and either after a schema registry's frame. Uses msgspec structs
instead of pydantic, because this runs for every record; a test compares both.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.envelope import CONTENT_TYPE_HEADER, REQUEST_TYPE
from ...schemas.request import MAX_ID_BYTES, MAX_METADATA
from ..errors import RecordError
from ..field_paths import FieldPaths

_STRUCTURED: Final = b"application/cloudevents"
_BATCHED: Final = b"application/cloudevents-batch"
_REQUEST: Final = REQUEST_TYPE.encode()
_FRAME_BYTES: Final = 5
"""Length of a schema registry's frame: a zero byte and the schema's id, four bytes, big-endian."""


class Body(msgspec.Struct):
    """The fields of a request's value."""

    text: str
    tasks: list[str] | None = None
    id: str | None = None
    metadata: dict[str, str] | None = None
    text_pair: str | None = None


class Event(msgspec.Struct):
    """The used attributes of a CloudEvent in structured mode."""

    id: str
    source: str
    specversion: str
    type: str
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str | None = None
    traceparent: str | None = None


class _Named(msgspec.Struct):
    id: str | None = None


_AT_THE_TOP: Final = FieldPaths()
_decode_body = msgspec.json.Decoder(Body).decode
_decode_event = msgspec.json.Decoder(Event).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_any = msgspec.json.Decoder().decode


def value_format(headers: Iterable[tuple[str, bytes | None]]) -> Literal["event", "request"] | None:
    """Return what the content type says of a value: a structured-mode CloudEvent, or a request with its fields at the top
    whatever the settings say of the topic. None: nothing.

    Raises RecordError `invalid` for a batch of events.
    """
    for name, raw in headers:
        if name == CONTENT_TYPE_HEADER and raw is not None:
            kind = raw.strip().lower()
            if kind.startswith(_BATCHED):
                raise RecordError(Reason.INVALID, "a batch of CloudEvents; send a record for each")
            if kind.startswith(_REQUEST):
                return "request"
            return "event" if kind.startswith(_STRUCTURED) else None
    return None


def read_event(value: bytes) -> tuple[Event, bytes]:
    """Return a CloudEvent's attributes and the bytes of its data."""
    event: Event = _decode(_decode_event, value)
    if not event.id:
        raise RecordError(Reason.INVALID, "the event's `id` is empty")
    kind = (event.datacontenttype or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise RecordError(Reason.INVALID, "the event's `datacontenttype` is not JSON")
    if event.data_base64 is not None:
        try:
            return event, base64.b64decode(event.data_base64, validate=True)
        except (binascii.Error, ValueError):
            raise RecordError(Reason.INVALID, "the event's `data_base64` is not base64") from None
    if not memoryview(event.data):
        raise RecordError(Reason.INVALID, "the event has no `data`")
    return event, bytes(event.data)


def read_body(value: bytes, fields: FieldPaths | None = None) -> Body:
    """Parse the fields of a request, at the paths `fields` (None: top level). Raises RecordError."""
    if fields is not None:
        return _check_body(_read_fields(value, fields), fields)
    try:
        body: Body = _decode_body(value)
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        body = _decode(_decode_body, value)  # decode again for a precise error, or past a frame
    return _check_body(body, _AT_THE_TOP)


def read_id(value: bytes, fields: FieldPaths | None = None) -> str | None:
    """Return the `id` of a value, at its path in `fields` (None: top level); None without one. Raises RecordError."""
    if fields is None:
        named: _Named = _decode(_decode_named, value)
        return named.id or None
    found = fields.pick(_decode(_decode_any, value)).get("id")
    return found if found and isinstance(found, str) else None


def _check_body(body: Body, fields: FieldPaths) -> Body:
    text, request_id, tasks, metadata = body.text, body.id, body.tasks, body.metadata
    if not text or text.isspace():
        raise RecordError(Reason.INVALID, f"{fields.place('text')} is empty")
    if body.text_pair is not None and (not body.text_pair or body.text_pair.isspace()):
        raise RecordError(Reason.INVALID, f"{fields.place('text_pair')} is empty")
    if request_id is not None:
        if not request_id:
            raise RecordError(Reason.INVALID, f"{fields.place('id')} is empty")
        if len(request_id) * 4 > MAX_ID_BYTES:
            check_id(request_id, Reason.INVALID, fields.place("id"))
    if tasks is not None and (not tasks or "" in tasks):
        raise RecordError(Reason.INVALID, f"{fields.place('tasks')} is empty or has an empty name")
    if metadata is not None and len(metadata) > MAX_METADATA:
        raise RecordError(
            Reason.INVALID, f"{fields.place('metadata')} has {len(metadata)} entries, at most {MAX_METADATA}"
        )
    return body


def check_id(request_id: str, reason: Reason, place: str) -> None:
    """Refuse an id that is too long: a result contains it four times."""
    # At most four bytes a character, so most ids are not encoded to be measured.
    if len(request_id) * 4 > MAX_ID_BYTES and len(request_id.encode()) > MAX_ID_BYTES:
        size = len(request_id.encode())
        raise RecordError(reason, f"{place} has {size} bytes, at most {MAX_ID_BYTES} are an id")


def _read_fields(value: bytes, fields: FieldPaths) -> Body:
    picked = fields.pick(_decode(_decode_any, value))
    if "text" not in picked:
        raise RecordError(Reason.INVALID, f"{fields.place('text')} is missing")
    for name, found in picked.items():
        try:
            picked[name] = msgspec.convert(found, Body.__annotations__[name])
        except msgspec.ValidationError as error:
            # msgspec's message has the types, never the value.
            raise RecordError(Reason.INVALID, f"{fields.place(name)}: {error}") from None
    return Body(**picked)


def _decode(decode: Any, value: bytes) -> Any:
    try:
        return decode(value)
    except UnicodeDecodeError:
        raise _why_not_json(value) from None
    except msgspec.ValidationError as error:
        # msgspec's message has the path and the types, never the value.
        raise RecordError(Reason.INVALID, str(error)) from None
    except msgspec.DecodeError:
        if value[:1] != b"\0":  # JSON never starts with it
            raise _why_not_json(value) from None
    except RecursionError:
        raise RecordError(Reason.INVALID, "the value is nested too deeply") from None
    return _decode_framed(decode, value)


def _decode_framed(decode: Any, value: bytes) -> Any:
    """Decode the JSON after a schema registry's frame. Raises RecordError that names the frame for anything else."""
    framed = value[_FRAME_BYTES:]
    if not framed or framed[:1] == b"\0":
        raise _why_not_json(value) if len(value) <= _FRAME_BYTES else _not_json_in_frame(value)
    try:
        return _decode(decode, framed)
    except RecordError as error:
        if error.reason is Reason.INVALID:
            raise
        raise _not_json_in_frame(value) from None


def _not_json_in_frame(value: bytes) -> RecordError:
    schema = int.from_bytes(value[1:_FRAME_BYTES], "big")
    return RecordError(
        Reason.NOT_JSON,
        f"behind the frame of a schema registry (schema {schema}) lies no JSON; Avro and Protobuf are not read",
    )


def _why_not_json(value: bytes) -> RecordError:
    try:
        value.decode()
    except UnicodeDecodeError:
        return RecordError(Reason.NOT_UTF8, "the value is not UTF-8")
    return RecordError(Reason.NOT_JSON, "the value is not JSON (a lone surrogate and NaN are not either)")
