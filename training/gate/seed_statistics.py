"""Two ways of training on the same rows, compared over several seeds. Pure."""

from collections.abc import Hashable, Sequence
from math import hypot
from statistics import NormalDist, mean, stdev
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from ..kinds.figures.outcome import Array, Outcome
from .statistics import POWER, RESAMPLES, compare


class SeedsDifference(NamedTuple):
    """Joint less alone, the mean over the seeds, in points."""

    alone: float
    joint: float
    difference: float
    low: float | None
    high: float | None
    """The 95 % interval; None of one seed, whose spread is not known."""
    by_seed: list[float]

    @property
    def smallest_loss(self) -> float | None:
        """The smallest true loss, in points, that an interval as wide as this one would have shown in 80 % of the cases.

        An interval shows a loss when it lies below 0. With the standard error e = (difference - low) / z(97.5 %) that takes a
        loss of (z(97.5 %) + z(80 %)) * e (Bloom 1995, *Minimum detectable effects*), by the normal approximation.
        """
        if self.low is None:
            return None
        normal = NormalDist()
        edge = normal.inv_cdf(0.975)
        return (self.difference - self.low) * (edge + normal.inv_cdf(POWER)) / edge


def compare_seeds(
    alone: Sequence[Outcome],
    joint: Sequence[Outcome],
    conversations: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> SeedsDifference:
    """Compare two ways of training on the same rows, a pair of outcomes a seed.

    The paired bootstrap draws rows (conversations) for all seeds together. Seeds spread independently of the rows: half of a
    t interval of the seeds' differences is added to each side in quadrature.
    """
    found = compare(_stack(alone), _stack(joint), conversations, sign_flips=1, resamples=resamples)
    by_seed = [100 * (one.metric - other.metric) for one, other in zip(joint, alone, strict=True)]
    middle, low, high = (100 * value for value in (found.difference, found.low, found.high))
    levels = (100 * found.current, 100 * found.candidate)
    if len(by_seed) < 2:
        return SeedsDifference(*levels, mean(by_seed), None, None, by_seed)
    seeds = float(student.ppf(0.975, len(by_seed) - 1)) * stdev(by_seed) / len(by_seed) ** 0.5
    return SeedsDifference(
        *levels, middle, middle - hypot(middle - low, seeds), middle + hypot(high - middle, seeds), by_seed
    )


def _stack(outcomes: Sequence[Outcome]) -> Outcome:
    """Return one outcome, whose metric is the mean of those of outcomes on the same rows."""
    compute = outcomes[0].compute

    def compute_mean(sums: Array) -> Array:
        found: Array = np.mean([compute(each) for each in np.split(sums, len(outcomes), axis=-1)], axis=0)
        return found

    return Outcome(np.concatenate([each.columns for each in outcomes], axis=1), compute_mean)
