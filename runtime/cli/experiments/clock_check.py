"""Refuses to start, raise or promote an experiment from a machine whose clock is behind the results that it would count."""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ...settings.settings import Settings

TOLERANCE_S: Final = 60.0
"""Records may be so far out of order."""
_LATEST: Final = 5
"""Results of a partition that must all be ahead: one alone may have a time of its own."""
_PATIENCE_S: Final = 20.0


def check_clock(settings: "Settings") -> None:
    """Raise SetupError where the latest results are later than this machine's clock.

    The times of an experiment's steps are those of this clock, and what it counts goes by the times of records: results before the
    start, or from before a larger share, would count.
    """
    import typer

    from ...errors import MurmuraError, SetupError
    from ..until_signalled import run_until_stopped

    try:
        latest = run_until_stopped(lambda stop: _read_latest(settings))
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
            f"the clock of this machine ({_format(now)}) is behind the latest results in {where} ({_format(at)}), which would count as "
            "later than this step: set it, or that of the process that wrote them"
        )


def find_ahead(latest: Mapping[str, Iterable[float]], now: float) -> tuple[str, float] | None:
    """Return the partition whose latest results are furthest ahead of the clock, and the earliest time of them; None without one.

    `latest`: Unix times in seconds by partition.
    """
    ahead = {where: min(times) for where, times in latest.items() if times}
    where = max(ahead, key=lambda each: ahead[each], default=None)
    return None if where is None or ahead[where] <= now + TOLERANCE_S else (where, ahead[where])


async def _read_latest(settings: "Settings") -> dict[str, list[float]]:
    """Return the times of the latest results of each partition of the default agents' topics."""
    from ...kafka import offset_ranges
    from ...kafka.topics import fetch_partition_counts
    from ...release.states import within
    from .unit_rate import list_topics

    topics = list_topics(settings)
    async with within(_PATIENCE_S, ", ".join(topics)):
        existing = await fetch_partition_counts(settings.kafka)
        ranges = await offset_ranges.freeze(settings.kafka, [[topic for topic in topics if topic in existing]])
        ends = [each._replace(start=max(each.start, each.end - _LATEST)) for each in ranges if each.records]
        times: dict[str, list[float]] = {}

        def take(number: int, records: list[Any]) -> None:
            where = f"{ends[number].topic}/{ends[number].partition}"
            times.setdefault(where, []).extend(record.timestamp / 1000 for record in records)

        await offset_ranges.read(settings.kafka, ends, take)
    return times


def _format(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z"
