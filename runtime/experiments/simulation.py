"""Simulates experiments by the rules that judge real ones: how often they end rightly and wrongly, and how long they take."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .intervals import estimate_effect
from .sums import RatioSums

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Setup:
    """One ratio that is both goal and guardrail, each one of several.

    `rate` is the control's, `improvement` the true difference of the candidate's. `unit_weight` is the mean number of
    chances of a unit (a geometric distribution; 1: always one) and `correlation` that between chances of one unit.
    """

    share: float
    rate: float
    improvement: float = 0.0
    units: int = 20_000
    looks: int = 1000
    unit_weight: float = 1.0
    correlation: float = 0.0
    min_units: int = 1
    alpha: float = 0.05
    tuning: int = 5000
    goals: int = 1
    """`alpha` is divided among so many."""
    guardrails: int = 1
    """0: it is none, and stops nothing."""
    goal_margin: float = 0.0
    guardrail_margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came of the runs. Arrays have one number a run: units of both sides at the end, NaN where it did not come."""

    promoted_at: Array
    stopped_at: Array
    covered: NDArray[np.bool_]
    """Whether all intervals of the run held the true difference."""

    @property
    def promoted(self) -> float:
        """Share of the runs."""
        return float(np.mean(~np.isnan(self.promoted_at)))

    @property
    def stopped(self) -> float:
        """Share of the runs."""
        return float(np.mean(~np.isnan(self.stopped_at)))

    @property
    def coverage(self) -> float:
        """Share of the runs."""
        return float(np.mean(self.covered))


def simulate(setup: Setup, runs: int, seed: int = 0) -> Simulated:
    """Return what becomes of `runs` experiments, looked at after each `units / looks` units, that end at the first decision."""
    random = np.random.default_rng(seed)
    a_look = max(setup.units // setup.looks, 1)
    candidate, control = RatioSums(np.zeros(runs)), RatioSums(np.zeros(runs))
    promoted, stopped = np.full(runs, np.nan), np.full(runs, np.nan)
    covered = np.ones(runs, dtype=bool)
    for look in range(1, setup.looks + 1):
        on_candidate = random.binomial(a_look, setup.share, runs)
        candidate += _draw(random, on_candidate, setup.rate + setup.improvement, setup)
        control += _draw(random, a_look - on_candidate, setup.rate, setup)
        goal = _estimate(candidate, control, setup, setup.goals)
        guardrail = _estimate(candidate, control, setup, setup.guardrails, guards=True)
        low, high = goal[0], guardrail[1]
        covered &= ~((low > setup.improvement) | (high < setup.improvement))
        running = np.isnan(promoted) & np.isnan(stopped)
        enough = np.minimum(candidate.units, control.units) >= setup.min_units
        promoted[running & enough & (low > setup.goal_margin)] = look * a_look
        stopped[running & (high < setup.guardrail_margin)] = look * a_look
    return Simulated(promoted, stopped, covered)


def _estimate(
    candidate: RatioSums, control: RatioSums, setup: Setup, measures: int, *, guards: bool = False
) -> tuple[Array, Array]:
    """Return the ends of the intervals of one of so many measures; NaN where there is none."""
    if measures == 0:
        nothing = np.full(np.shape(candidate.units), np.nan)
        return nothing, nothing
    effect = estimate_effect(candidate, control, setup.alpha / measures, setup.tuning, guards=guards)
    return np.asarray(effect.low), np.asarray(effect.high)


def _draw(random: np.random.Generator, units: NDArray[np.int64], rate: float, setup: Setup) -> RatioSums:
    """Return the sums of so many new units of each run."""
    if setup.unit_weight == 1.0:
        events = random.binomial(units, rate).astype(float)
        number = units.astype(float)
        return RatioSums(number, events, number, events, number, events, events, number - events)
    runs = np.repeat(np.arange(len(units)), units)
    weight = random.geometric(1.0 / setup.unit_weight, len(runs))
    value = random.binomial(weight, _draw_rates(random, len(runs), rate, setup.correlation))
    with_event, without_event = value > 0, value < weight
    amounts = (np.ones(len(runs)), value, weight, value**2, weight**2, value * weight, with_event, without_event)
    return RatioSums(*(np.bincount(runs, amount, minlength=len(units)).astype(float) for amount in amounts))


def _draw_rates(random: np.random.Generator, number: int, rate: float, correlation: float) -> Array:
    """Return a rate for each unit, of a beta distribution: chances of one unit then correlate so."""
    if not correlation:
        return np.full(number, rate)
    precision = 1.0 / correlation - 1.0
    return random.beta(rate * precision, (1.0 - rate) * precision, number)
