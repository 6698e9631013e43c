"""Intervals that hold at every look, and the check that units arrive on the sides as they should."""

import math
from dataclasses import dataclass

import numpy as np

from ...schemas.experiment import FEWEST_EVENTS
from .sums import Number, RatioSums

MISMATCH_P = 0.0005
"""Sides that are filled as unevenly as this by chance alone are a mismatch."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Candidate minus control of one ratio, with its interval; NaN where there is none yet."""

    difference: Number
    low: Number
    high: Number


def estimate_effect(
    candidate: RatioSums, control: RatioSums, alpha: float, tuning: int, *, guards: bool = False
) -> Effect:
    """Return the difference of the ratios with an asymptotic confidence sequence.

    All intervals of an experiment, at whatever units one looks, hold the true difference together with probability
    1 - `alpha`. `tuning` is the number of units of both sides at which the interval is narrowest. There is none before
    each side has `FEWEST_EVENTS` units with an event and as many with a miss. `guards`: there is one too where both sides
    would have as many if they were equal, so that a side that has none because it is so much worse is judged.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, Time-uniform central limit theory and asymptotic confidence
    sequences, Annals of Statistics 2024, theorem 2.2; the choice of rho, appendix C.3.
    """
    units = np.asarray(candidate.units) + control.units
    difference = np.asarray(candidate.ratio) - control.ratio
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.sqrt(_estimate_variance(candidate, control)) * _boundary(units, alpha, tuning)
    known = np.logical_and(_has_events(candidate), _has_events(control))
    if guards:
        known = np.logical_or(known, _would_have_events(candidate, control))
    low, high = np.where(known, difference - half, np.nan), np.where(known, difference + half, np.nan)
    return Effect(_number(difference), _number(low), _number(high))


def _estimate_variance(candidate: RatioSums, control: RatioSums) -> np.ndarray:
    """Return the squared standard error of the difference.

    The larger of that of two sides with variances of their own, and that of one variance of all units: a small side that has
    missed the rare units so far takes itself for surer than it is.
    """
    of_sides = np.asarray(candidate.variance) + control.variance
    pooled = candidate + control
    of_all = pooled.variance * pooled.units * (1.0 / np.asarray(candidate.units) + 1.0 / np.asarray(control.units))
    return np.maximum(of_sides, of_all)


def find_mismatch(expected: Number, variance: Number, units: Number) -> Number:
    """Return the p-value of `units` on the candidate's side, of which `expected` were to come, with this variance.

    Sums over the shares that an experiment has had: n * share and n * share * (1 - share). 1 without units.
    Source: Fabijan et al., Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD 2019: a chi-squared test
    of one degree of freedom.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(np.asarray(variance) > 0.0, np.abs(np.asarray(units) - expected) / np.sqrt(variance), 0.0)
    return _number(np.vectorize(math.erfc, otypes=[float])(z / math.sqrt(2.0)))


def _boundary(units: Number, alpha: float, tuning: int) -> Number:
    """Return the half width of the sequence in standard errors."""
    spread = -2.0 * math.log(alpha)
    rho_squared = (spread + math.log(spread) + 1.0) / tuning
    time = np.asarray(units, dtype=np.float64) * rho_squared
    return np.sqrt(2.0 * (time + 1.0) / time * np.log(np.sqrt(time + 1.0) / alpha))


def _has_events(sums: RatioSums) -> np.ndarray:
    return np.minimum(sums.with_event, sums.without_event) >= FEWEST_EVENTS


def _would_have_events(candidate: RatioSums, control: RatioSums) -> np.ndarray:
    """Return whether each side is expected to have enough events and misses by the rate of both together.

    Source: the rule for expected counts of chi-squared tests; Cochran, The chi-squared test of goodness of fit, 1952.
    """
    pooled, fewer = candidate + control, np.minimum(candidate.units, control.units)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = fewer * np.minimum(pooled.with_event, pooled.without_event) / np.asarray(pooled.units)
    return np.asarray(expected >= FEWEST_EVENTS)


def _number(values: np.ndarray) -> Number:
    return float(values) if np.ndim(values) == 0 else values
