"""Draws answers at random for human review: so many a minute, or units of a running experiment by hash. Pure."""

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from ...schemas.review import ReviewReason
from ..batching.queues.entry import Entry
from ..experiments.assignment import draw_review
from .delivery import Delivery

BURST_S: Final = 10.0
"""Seconds for which unused budget is kept, so that a quiet period is not followed by a burst."""
MOST_UNITS: Final = 50_000
"""Drawn units that are remembered, about 5 MB. The one drawn first is forgotten first, and asked about again if it comes back."""


class Drawn(NamedTuple):
    """One answer to review because it was drawn, with the probability of that."""

    row: int
    task: str
    rate: float
    experiment: str | None = None
    """The experiment of which a unit was drawn."""

    @property
    def why(self) -> ReviewReason:
        return ReviewReason.RANDOM


class RandomSample:
    """Draws answers at random, `per_minute` on average. Pure.

    Each batch gets what the budget has gathered since the one before, at most ten seconds' worth or one; so the
    probability is the same for all records of a batch, greater when fewer come, and known when one is drawn. Of a record
    with several tasks one is drawn.
    """

    def __init__(self, per_minute: float, now: float, draw: random.Random) -> None:
        self._per_s, self._draw, self._at = per_minute / 60, draw, now
        self._most = max(1.0, self._per_s * BURST_S)
        self._gathered = 0.0

    def take(self, entries: Sequence[Entry], now: float) -> list[Drawn]:
        """Return the answers of a batch that are drawn. Records that have no answer count, and are not drawn."""
        self._gathered = min(self._most, self._gathered + (now - self._at) * self._per_s)
        self._at = now
        expected = min(self._gathered, len(entries))
        self._gathered -= expected
        count = int(expected)
        count += self._draw.random() < expected - count
        if not count:
            return []
        found = []
        for row in self._draw.sample(range(len(entries)), count):
            if tasks := list(entries[row].outputs or ()):
                rate = expected / len(entries) / len(tasks)
                found.append(Drawn(row, self._draw.choice(tasks), rate))
        return found


class UnitSample:
    """Draws a share of the units of an experiment, and of each the first record that is answered here. Pure.

    The hash decides, so each unit is drawn or not in every process, whichever side answers it. One record of a unit is drawn,
    however many it has, as long as the process remembers it: see `MOST_UNITS`. Another process that gets the unit's records,
    or a restarted one, draws a record of it again. Of a record with several tasks the hash chooses one.
    """

    def __init__(self, share: float, most: int = MOST_UNITS) -> None:
        self._share, self._most = share, most
        self._asked: dict[int, None] = {}
        """Drawn units by their hash, which depends on the experiment; oldest first."""

    def take(self, entries: Sequence[Entry]) -> tuple[list[Drawn], list[int]]:
        """Return the answers of a batch that are drawn, and the rows that belong to no unit of an experiment."""
        found, others = [], []
        for row, entry in enumerate(entries):
            delivery: Delivery = entry.context
            if delivery.chosen is None or (unit := delivery.find_unit()) is None:
                others.append(row)
            elif drawn := self._draw(row, entry, delivery.chosen.experiment, unit):
                found.append(drawn)
        return found, others

    def _draw(self, row: int, entry: Entry, experiment: str, unit: str) -> Drawn | None:
        tasks = sorted(entry.outputs or ())
        place, key = draw_review(experiment, unit)
        if place >= self._share or key in self._asked or not tasks:
            return None
        self._asked[key] = None
        if len(self._asked) > self._most:
            del self._asked[next(iter(self._asked))]
        return Drawn(row, tasks[key % len(tasks)], self._share / len(tasks), experiment)
