"""Fetches one dead letter, and writes its original out for people."""

import json
from dataclasses import dataclass
from typing import Any, Final

from ...runtime.errors import RecordError
from ...runtime.kafka import offset_ranges
from ...runtime.kafka.offset_ranges import OffsetRange
from ...runtime.settings.settings import Settings
from ...runtime.wire.dead_letter_records import Letter, original_record, read_letter
from ...schemas.deadletter import DeadLetter

_HEX_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class ShownLetter:
    """A dead letter as text. `value` is None for a record without one; `is_text` is False for its bytes in hex."""

    fields: DeadLetter
    original: str
    """Its place as `topic/partition/offset`."""
    key: str | None
    headers: list[tuple[str, str]]
    """Those of the original."""
    value: str | None
    value_bytes: int
    is_text: bool
    is_cut: bool


async def fetch_letter(settings: Settings, place: tuple[int, int]) -> ShownLetter | None:
    """Return the dead letter at partition and offset; None where none is. Raises MurmuraError."""
    partition, offset = place
    ranges = await offset_ranges.freeze(settings.kafka, [[settings.dead_letters]])
    if not any(each.partition == partition and each.start <= offset < each.end for each in ranges):
        return None
    found: list[Any] = []
    wanted = OffsetRange(settings.dead_letters, partition, offset, offset + 1)
    await offset_ranges.read(settings.kafka, [wanted], lambda number, records: found.extend(records))
    fields = read_letter(found[0]) if found else None
    return None if fields is None else write_out(Letter(found[0], fields))


def write_out(letter: Letter) -> ShownLetter:
    """Return a dead letter as text."""
    fields, record = letter.fields, letter.record
    try:
        original = original_record(letter)
        place, headers = f"{original.topic}/{original.partition}/{original.offset}", original.headers
    except RecordError:
        place, headers = f"{fields.topic}/{fields.partition}/{fields.offset}", record.headers
    value, is_text = _write_value(record.value)
    return ShownLetter(
        fields,
        place,
        None if record.key is None else record.key.decode(errors="replace"),
        [(name, (raw or b"").decode(errors="replace")) for name, raw in headers],
        value,
        len(record.value or b""),
        is_text,
        letter.is_cut,
    )


def _write_value(raw: bytes | None) -> tuple[str | None, bool]:
    """Return the value, and whether it is text. JSON is written without escapes, so that masking sees what people see."""
    if raw is None:
        return None, True
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return raw[:_HEX_BYTES].hex(" "), False
    try:
        written = json.dumps(json.loads(text), ensure_ascii=False, indent=2)
        written.encode()  # a lone surrogate has no place on a page
    except (ValueError, RecursionError):
        return text, True
    return written, True
