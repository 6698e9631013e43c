"""What a model gets right on each row, in a form that two models can be compared by. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one model scored on each row of a set: numerator and denominator of a ratio, both [N]."""

    numerator: Array
    denominator: Array

    @property
    def metric(self) -> float:
        return ratio(self.numerator.sum(), self.denominator.sum()).item()

    def rows(self, chosen: NDArray[Any]) -> "Outcome":
        """Return a part of the rows, by mask or by numbers."""
        return Outcome(self.numerator[chosen], self.denominator[chosen])


def of_accuracy(right: Iterable[bool]) -> Outcome:
    """Return the outcome whose metric is the share of rows that are right."""
    hits = np.array(list(right), np.float64)
    return Outcome(hits, np.ones_like(hits))


def of_f1(hits: Iterable[int], extra: Iterable[int], missed: Iterable[int]) -> Outcome:
    """Return the outcome whose metric is the micro-F1; counts by row. Where nothing was to be found and nothing was, it is 1."""
    tp, fp, fn = (np.array(list(counts), np.float64) for counts in (hits, extra, missed))
    return Outcome(2 * tp, 2 * tp + fp + fn)


def ratio(above: Any, below: Any) -> Array:
    """Return the quotients, 1 where there is nothing below."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.where(below > 0, above / np.where(below > 0, below, 1), 1.0)
