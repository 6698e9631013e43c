"""How sure and how late the answers of both sides are: counts in bins that never change, so that they add up. Pure."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from .assignment import Side

SCORE_BINS: Final = 20
MOST_TASKS: Final = 100
"""Further tasks are not counted."""
LATENCY_STEPS: Final = 4
"""Bins in each doubling of the latency, from one millisecond on: a bin is 19 % wide."""
_LAST_LATENCY_BIN: Final = 24 * LATENCY_STEPS
"""From 4.7 hours on."""

Bins = dict[Side, Counter[int]]


@dataclass(slots=True)
class Distributions:
    """Answers by the side that gave them: `scores` by task and bin, `latency` by bin."""

    scores: dict[str, Bins] = field(default_factory=dict)
    latency: Bins = field(default_factory=dict)

    def count(self, side: Side, scores: Mapping[str, float], latency_ms: float | None) -> None:
        """Count an answer: the scores of its tasks, and how long after its request it came."""
        for task, score in scores.items():
            if task in self.scores or len(self.scores) < MOST_TASKS:
                bins = self.scores.setdefault(task, {}).setdefault(side, Counter())
                bins[min(max(int(score * SCORE_BINS), 0), SCORE_BINS - 1)] += 1
        if latency_ms is not None:
            step = int(math.log2(max(latency_ms, 1.0)) * LATENCY_STEPS)
            self.latency.setdefault(side, Counter())[min(step, _LAST_LATENCY_BIN)] += 1


def find_score(bins: Mapping[int, int], part: float) -> float:
    """Return the score below which a part of the answers is, taken to be spread evenly in each bin; NaN without an answer."""
    return _find_place(bins, part) / SCORE_BINS


def find_latency(bins: Mapping[int, int], part: float) -> float:
    """Return the milliseconds within which a part of the answers came, likewise on the logarithm; NaN without an answer."""
    return float(2.0 ** (_find_place(bins, part) / LATENCY_STEPS))


def _find_place(bins: Mapping[int, int], part: float) -> float:
    left = part * sum(bins.values())
    for step in sorted(bins):
        if left <= bins[step]:
            return step + left / bins[step]
        left -= bins[step]
    return math.nan


def list_heights(bins: Mapping[int, int]) -> Iterator[float]:
    """Yield the height of each bin of scores, 1 for the highest."""
    highest = max(bins.values(), default=0) or 1
    return (bins.get(step, 0) / highest for step in range(SCORE_BINS))
