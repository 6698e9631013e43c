"""Options that select a part of a topic: times and offsets."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from ...errors import SetupError

Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="From this time on: 2026-01-31T12:00Z, or an age: 90m, 24h, 7d."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before this time or age.")]
Offsets = Annotated[
    list[str] | None,
    typer.Option(
        "--offsets",
        metavar="PARTITION:START-END",
        help="Only these offsets; END is exclusive and optional. Repeatable.",
    ),
]
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_OFFSETS: Final = re.compile(r"(\d+):(\d+)(?:-(\d*))?")
_LAST: Final = 2**63 - 1


def read_time(option: str, text: str | None, now: datetime | None = None) -> float | None:
    """Parse a time or an age before `now` into Unix time in seconds. No zone means UTC. Raises SetupError."""
    if text is None:
        return None
    if (age := _AGE.fullmatch(text)) is not None:
        return ((now or datetime.now(UTC)) - timedelta(**{_UNITS[age[2]]: float(age[1])})).timestamp()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SetupError(
            f"{option}: expected a time like 2026-01-31T12:00Z or an age like 24h, found {text!r}"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def read_offsets(texts: Iterable[str] | None) -> dict[int, tuple[int, int]]:
    """Parse offsets by partition into start and exclusive end. `2:17` is one record, `2:17-` has no end."""
    chosen: dict[int, tuple[int, int]] = {}
    for text in texts or ():
        found = _OFFSETS.fullmatch(text)
        if found is None:
            raise SetupError(f"--offsets: expected PARTITION:START-END, found {text!r}")
        partition, start = int(found[1]), int(found[2])
        end = start + 1 if found[3] is None else int(found[3] or _LAST)
        if end <= start:
            raise SetupError(f"--offsets: {text!r} holds no record: END has to be above START")
        if partition in chosen:
            raise SetupError(f"--offsets: partition {partition} is given twice; one range a partition")
        chosen[partition] = (start, end)
    return chosen
