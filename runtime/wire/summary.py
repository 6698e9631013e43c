"""One-line summaries of results and dead letters for people."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ...schemas.deadletter import PREFIX, REDRIVEN
from ..errors import SetupError
from ..model.kinds.registry import find_kind

Headers = Sequence[tuple[str, bytes]]


def safe(text: str, limit: int = 0) -> str:
    """Return the text without terminal control characters, cut to `limit` characters when one is given."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain[: limit - 1] + "…" if limit and len(plain) > limit else plain


def output_line(output: Any) -> str:
    """Format one task's answer, for example `card_arrival 0.93`, `? out_of_scope 0.81` or `£20 (amount)`.

    An answer of a kind that is not installed, or that does not have the form of its kind, is formatted as JSON.
    """
    try:
        kind = find_kind(output)
        return json.dumps(output) if kind is None else safe(kind.format_line(output))
    except (AttributeError, KeyError, TypeError, ValueError, SetupError):
        return json.dumps(output)


def record_line(value: bytes | None, headers: Headers) -> str:
    """Summarise a record of any topic: a result's outputs or that it expired, a dead letter's reason, else the value itself."""
    if value is None and (place := dict(headers).get(REDRIVEN)):
        return safe(f"dead letter {place.decode(errors='replace')} was sent again")
    dead = {name: text.decode(errors="replace") for name, text in headers if name.startswith(PREFIX) and text}
    if PREFIX + "reason" in dead:
        agent = dead.get(PREFIX + "agent")
        return safe(
            f"dead letter {dead[PREFIX + 'reason']}{f' of {agent}' if agent else ''}: {dead.get(PREFIX + 'message', '')}"
            f"  ({dead.get(PREFIX + 'topic')}/{dead.get(PREFIX + 'partition')}/{dead.get(PREFIX + 'offset')})"
        )
    fields = _fields(value)
    if fields is not None and isinstance(fields.get("outputs"), dict) and "agent" in fields:
        if fields.get("status") == "expired":
            return safe(f"{fields['agent']}  expired")
        outputs = "  ".join(f"{task}: {output_line(output)}" for task, output in fields["outputs"].items())
        return safe(f"{fields['agent']}  {outputs}{'  (truncated)' if fields.get('truncated') else ''}")
    return safe("(no value)" if value is None else value.decode(errors="replace"), 500)


def time_line(timestamp_ms: int) -> str:
    """Return the local time of day. A number that is not a time in milliseconds is returned as it is."""
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000).strftime("%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(timestamp_ms)


def _fields(value: bytes | None) -> dict[str, Any] | None:
    try:
        fields = json.loads(value or b"null")
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None
