"""Options that choose a part of a topic: times and offsets."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from ..errors import SetupError

Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="From then on: 2026-01-31T12:00Z, or an age: 90m, 24h, 7d."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then: a time or an age.")]
Offsets = Annotated[
    list[str] | None,
    typer.Option(
        "--offsets",
        metavar="PARTITION:START-END",
        help="Only these; END is the last one's number plus one, and may be left out. May be given several times.",
    ),
]
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_OFFSETS: Final = re.compile(r"(\d+):(\d+)(?:-(\d*))?")
_LAST: Final = 2**63 - 1


def read_time(option: str, text: str | None, now: datetime | None = None) -> float | None:
    """Return a time in seconds since 1970; an age counts back from `now`. A time without a zone is UTC. SetupError."""
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
    """Return partition to first offset and the one behind the last. `2:17` is one record, `2:17-` all from there on."""
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
