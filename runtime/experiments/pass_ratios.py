"""Compares how slow the passes of both versions are, window by window. Pure: the caller passes the minutes of records."""

import math
from collections import Counter
from typing import Final

from .assignment import Side

WINDOW_MINUTES: Final = 10
FEWEST_RESULTS: Final = 500
"""Results of each side that a window needs."""
TIMES_SLOWER: Final = 2.0
WINDOWS_IN_ROW: Final = 3
_STEP: Final = 1.05
"""Ratios within 5 % of each other count as equal."""
_STEPS: Final = 200
"""Ratios from 1/17,000 to 17,000."""

Bins = dict[Side, Counter[int]]


class PassRatios:
    """The device time of passes, divided by the calibrated time, of results of each side.

    A window with fewer than `FEWEST_RESULTS` on a side ends a row of slow ones.
    """

    def __init__(self) -> None:
        self.open: dict[int, Bins] = {}
        self.closed = -1
        self.in_row = 0
        self.latest: tuple[float, float] | None = None
        """The 95th percentiles of the latest window with enough results: the candidate's and the control's."""

    @property
    def is_broken(self) -> bool:
        """Whether the candidate was too slow in enough windows in a row."""
        return self.in_row >= WINDOWS_IN_ROW

    def count(self, minute: int, side: Side, ratio: float) -> None:
        """Count a result; one of a window that is over is left out."""
        window = minute // WINDOW_MINUTES
        if window > self.closed:
            step = round(math.log(max(ratio, 1e-9), _STEP))
            bins = self.open.setdefault(window, {"candidate": Counter(), "control": Counter()})
            bins[side][max(-_STEPS, min(_STEPS, step))] += 1

    def close_until(self, minute: int) -> None:
        """Judge the windows that are over at this minute."""
        over = minute // WINDOW_MINUTES - 1
        for window in sorted(each for each in self.open if each <= over):
            bins = self.open.pop(window)
            follows = window == self.closed + 1
            self.closed = window
            if min(bins["candidate"].total(), bins["control"].total()) < FEWEST_RESULTS:
                self.in_row = 0
                continue
            candidate, control = (_find_p95(bins[side]) for side in ("candidate", "control"))
            self.latest = candidate, control
            is_slow = candidate >= TIMES_SLOWER * control / _STEP**0.5
            self.in_row = (self.in_row if follows else 0) + 1 if is_slow else 0
        if over > self.closed:  # windows without a result
            self.closed, self.in_row = over, 0


def _find_p95(bins: Counter[int]) -> float:
    left = math.ceil(0.95 * bins.total())
    for step in sorted(bins):
        left -= bins[step]
        if left <= 0:
            return float(_STEP**step)
    return math.nan
