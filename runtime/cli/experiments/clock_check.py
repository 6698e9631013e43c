"""Refuses to start, raise or promote an experiment from a machine whose clock is behind the results that it would count."""

import time
from collections import deque
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from ...settings.settings import Settings

TOLERANCE_S: Final = 60.0
"""Records may be so far out of order."""
LATEST: Final = 5
"""Results of a partition that must all be ahead: fewer may have times of their own."""
_LATEST_OFFSETS: Final = 50
"""Offsets of a partition among which they are looked for: markers of transactions take some."""
_PATIENCE_S: Final = 20.0

ClockCheck = Annotated[
    bool,
    typer.Option("--clock-check/--no-clock-check", help="Refuse where this machine's clock is behind the results."),
]


def check_clock(settings: "Settings") -> None:
    """Raise SetupError where the latest results are later than this machine's clock.

    The times of an experiment's steps are those of this clock, and what it counts goes by the times of records: results before the
    start, or from before a larger share, would count.
    """
    from ...errors import Closed, MurmuraError, SetupError
    from ..until_signalled import run_cancellable

    try:
        latest = run_cancellable(lambda stop: _read_latest(settings))
    except Closed:
        raise
    except MurmuraError as error:
        typer.echo(
            f"whether this machine's clock is right is not known: the results cannot be read ({error})", err=True
        )
        return
    now = time.time()
    found = find_ahead(latest, now)
    if found is not None:
        where, at = found
        raise SetupError(
            f"the clock of this machine ({_format(now)}) is behind the latest {LATEST} results in {where} ({_format(at)} or later), "
            "which would count as later than this step: set it; where it is right, and that of their writer is not, "
            "--no-clock-check goes on"
        )


def find_ahead(latest: Mapping[str, Collection[float]], now: float) -> tuple[str, float] | None:
    """Return the partition whose latest results are furthest ahead of the clock, and the earliest time of them; None without one.

    `latest`: Unix times in seconds by partition. One with fewer than `LATEST` says nothing.
    """
    ahead = {where: min(times) for where, times in latest.items() if len(times) >= LATEST}
    where = max(ahead, key=lambda each: ahead[each], default=None)
    return None if where is None or ahead[where] <= now + TOLERANCE_S else (where, ahead[where])


async def _read_latest(settings: "Settings") -> dict[str, deque[float]]:
    """Return the times of the latest results of each partition of the default agents' topics."""
    from ...kafka import offset_ranges
    from ...kafka.topics import fetch_partition_counts
    from ...release.states import within
    from .unit_rate import list_topics

    topics = list_topics(settings)
    async with within(_PATIENCE_S, ", ".join(topics)):
        existing = await fetch_partition_counts(settings.kafka)
        ranges = await offset_ranges.freeze(settings.kafka, [[topic for topic in topics if topic in existing]])
        ends = [each._replace(start=max(each.start, each.end - _LATEST_OFFSETS)) for each in ranges if each.records]
        times: dict[str, deque[float]] = {}

        def take(number: int, records: list[Any]) -> None:
            where = f"{ends[number].topic}/{ends[number].partition}"
            kept = times.setdefault(where, deque(maxlen=LATEST))
            kept.extend(record.timestamp / 1000 for record in records)

        await offset_ranges.read(settings.kafka, ends, take)
    return times


def _format(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z"
