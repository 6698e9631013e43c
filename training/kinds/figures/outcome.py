"""What a model gets right on each row, in a form that two models can be compared by. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SURE_ENOUGH: Final = 0.7


def compute_ratio(sums: Array) -> Array:
    """Return the quotients [...] of sums [..., 2]: numerator and denominator."""
    return ratio(sums[..., 0], sums[..., 1])


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one model scored on each row of a set: columns [N, K], and the metric that is made of their sums over the rows."""

    columns: Array
    compute: Callable[[Array], Array] = compute_ratio
    """Returns metrics [...] of sums [..., K]."""

    @property
    def metric(self) -> float:
        return float(self.compute(self.columns.sum(0)))

    def rows(self, chosen: NDArray[Any]) -> "Outcome":
        """Return a part of the rows, by mask or by numbers."""
        return Outcome(self.columns[chosen], self.compute)


def of_ratio(above: Iterable[float], below: Iterable[float]) -> Outcome:
    """Return the outcome whose metric is a ratio of sums; numerator and denominator by row."""
    return Outcome(np.stack([np.array(list(part), np.float64) for part in (above, below)], axis=1))


def of_accuracy(right: Iterable[bool]) -> Outcome:
    """Return the outcome whose metric is the share of rows that are right."""
    hits = np.array(list(right), np.float64)
    return of_ratio(hits, np.ones_like(hits))


def of_f1(hits: Iterable[int], extra: Iterable[int], missed: Iterable[int]) -> Outcome:
    """Return the outcome whose metric is the micro-F1; counts by row. Where nothing was to be found and nothing was, it is 1."""
    tp, fp, fn = (np.array(list(counts), np.float64) for counts in (hits, extra, missed))
    return of_ratio(2 * tp, 2 * tp + fp + fn)


def of_counts(pairs: Sequence[tuple[Counter[Any], Counter[Any]]]) -> Outcome:
    """Return the outcome of what there is and what was named, by row: micro-F1, or, where there is nothing in any row, the
    share of rows in which nothing was named. F1 says nothing then.
    """
    if not any(truth for truth, _ in pairs):
        return of_accuracy(not guess for _, guess in pairs)
    return of_f1(
        [(truth & guess).total() for truth, guess in pairs],
        [(guess - truth).total() for truth, guess in pairs],
        [(truth - guess).total() for truth, guess in pairs],
    )


def ratio(above: Any, below: Any) -> Array:
    """Return the quotients, 1 where there is nothing below."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.where(below > 0, above / np.where(below > 0, below, 1), 1.0)
