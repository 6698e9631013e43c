"""95 % intervals of figures on a set of rows. They cover the choice of rows, not the seed of training. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .outcome import Outcome, compute_ratio

Array = NDArray[np.float64]
RESAMPLES: Final = 500
_Z: Final = 1.959963984540054
_CHUNK_CELLS: Final = 2_000_000


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Sampled:
    """A figure that is made of sums over rows: columns [M, K] of M different rows, how often each occurs [M], and the figure
    [...] of sums [..., K].
    """

    columns: Array
    counts: NDArray[np.int64]
    compute: Callable[[Array], Array] = compute_ratio

    @property
    def rows(self) -> int:
        return int(self.counts.sum())


def sample_outcome(outcome: Outcome) -> Sampled:
    """Return an outcome as what can be drawn again: equal rows are one."""
    cells, counts = np.unique(outcome.columns, axis=0, return_counts=True)
    return Sampled(cells, counts, outcome.compute)


def sample_shares(right: Sequence[bool] | NDArray[Any]) -> Sampled:
    """Return the share of rows [N] that are right as what can be drawn again."""
    hits = int(np.sum(right))
    return Sampled(np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([hits, len(right) - hits]))


def find_interval(figure: Sampled, *, seed: int = 0) -> Interval | None:
    """Return Wilson's interval (1927) of a share, else the middle 95 % of bootstrap resamples; None without rows."""
    if figure.rows == 0:
        return None
    if _is_share(figure):
        return wilson(float(figure.columns[:, 0] @ figure.counts), figure.rows)
    draw, share, found = np.random.default_rng(seed), figure.counts / figure.rows, []
    chunk = max(1, _CHUNK_CELLS // len(share))
    for start in range(0, RESAMPLES, chunk):
        times = draw.multinomial(figure.rows, share, size=min(chunk, RESAMPLES - start))
        found.append(figure.compute(times @ figure.columns))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975]).tolist()
    return Interval(low, high)


def wilson(hits: float, rows: int) -> Interval:
    """Return Wilson's score interval of a share of `rows`, at least 1."""
    share, weight = hits / rows, _Z**2 / rows
    middle = (share + weight / 2) / (1 + weight)
    half = _Z * sqrt(share * (1 - share) / rows + weight / (4 * rows)) / (1 + weight)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def auroc_interval(inner: Array, outer: Array) -> Interval | None:
    """Return the interval of the share of pairs in which the score of `outer` [M] is above that of `inner` [N] (DeLong et al.
    1988); None where one of them has fewer than two.
    """
    if min(len(inner), len(outer)) < 2:
        return None
    below, above = _placements(outer, np.sort(inner)), 1 - _placements(inner, np.sort(outer))
    area = float(below.mean())
    half = _Z * sqrt(below.var(ddof=1) / len(outer) + above.var(ddof=1) / len(inner))
    return Interval(max(0.0, area - half), min(1.0, area + half))


def _placements(scores: Array, others: Array) -> Array:
    """Return the share of the sorted `others` below each score; ties count one half."""
    left, right = np.searchsorted(others, scores, "left"), np.searchsorted(others, scores, "right")
    return np.asarray((left + right) / (2 * len(others)))


def _is_share(figure: Sampled) -> bool:
    columns = figure.columns
    alike = columns.shape[1] == 2 and bool((columns[:, 1] == 1).all()) and bool(np.isin(columns[:, 0], (0, 1)).all())
    return alike and figure.compute is compute_ratio
