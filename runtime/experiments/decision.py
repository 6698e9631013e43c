"""Decides what follows from the sums of an experiment: wait, promote or stop. The caller passes the time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...schemas.experiment import FEWEST_EVENTS, Measure, Rules
from .intervals import MISMATCH_P, Effect, estimate_effect
from .sums import RatioSums

Action = Literal["wait", "promote", "stop"]
Sums = Mapping[str, tuple[RatioSums, RatioSums]]
"""By measure's key: the candidate's and the control's."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One measure: how much better the candidate is, with the interval; NaN where there is none yet."""

    measure: Measure
    improvement: float
    low: float
    high: float

    @property
    def is_reached(self) -> bool:
        """Whether the candidate is better by more than the margin, whatever the look."""
        return self.low > self.measure.margin

    @property
    def is_broken(self) -> bool:
        """Whether the candidate is worse than the margin allows, whatever the look."""
        return self.high < self.measure.margin


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and why, in one line."""

    action: Action
    why: str
    goals: tuple[Judged, ...]
    guardrails: tuple[Judged, ...]


def decide(rules: Rules, sums: Sums, units: tuple[int, int], hours: float, mismatch: float) -> Decision:
    """Return what to do.

    `units`: number of units that entered on the candidate's side and on the control's; `hours` since the start by the
    records' time; `mismatch` the p-value of `find_mismatch`. A guardrail stops at any time, a goal promotes from the rules'
    number of units and hours on; nothing is concluded from sides that are filled unevenly.
    """
    goals = judge(rules.goals, sums, rules.alpha, rules.tuning)
    guardrails = judge(rules.guardrails, sums, rules.alpha, rules.tuning, guards=True)
    action, why = _choose_action(rules, goals, guardrails, units, hours, mismatch)
    return Decision(action, why, goals, guardrails)


def judge(
    measures: Sequence[Measure], sums: Sums, alpha: float, tuning: int, *, guards: bool = False
) -> tuple[Judged, ...]:
    """Return the improvement of each measure; `alpha` is divided among them. `guards`: they are guardrails."""
    return tuple(
        orient(
            measure,
            estimate_effect(*sums.get(measure.key, _NOTHING), alpha / len(measures), tuning, guards=guards),
        )
        for measure in measures
    )


_NOTHING = (RatioSums(), RatioSums())


def orient(measure: Measure, effect: Effect) -> Judged:
    """Return the effect as an improvement: positive where the candidate is better."""
    low, high = (effect.low, effect.high) if measure.sign > 0 else (-effect.high, -effect.low)
    return Judged(measure, measure.sign * effect.difference, low, high)  # type: ignore[arg-type]


def _choose_action(
    rules: Rules,
    goals: tuple[Judged, ...],
    guardrails: tuple[Judged, ...],
    units: tuple[int, int],
    hours: float,
    mismatch: float,
) -> tuple[Action, str]:
    if mismatch < MISMATCH_P:
        return "wait", f"the sides are filled unevenly (p = {mismatch:.1g}): find out why, nothing is concluded"
    if broken := next((judged for judged in guardrails if judged.is_broken), None):
        return "stop", f"{broken.measure.key} is worse by {_interval(broken, -1)}"
    if waiting := next((judged for judged in goals if not judged.is_reached), None):
        return "wait", _explain_goal(waiting)
    if min(units) < rules.min_units:
        return "wait", f"{min(units):,} of {rules.min_units:,} units on the smaller side"
    if hours < rules.min_hours:
        return "wait", f"{hours:.1f} of {rules.min_hours:g} hours"
    return "promote", "; ".join(f"{judged.measure.key} is better by {_interval(judged, 1)}" for judged in goals)


def _explain_goal(goal: Judged) -> str:
    if math.isnan(goal.low):
        return f"{goal.measure.key}: no interval before {FEWEST_EVENTS} units with an event and without on each side"
    return f"{goal.measure.key}: {goal.improvement:+.3f} [{goal.low:+.3f}, {goal.high:+.3f}] is not above {goal.measure.margin:g}"


def _interval(judged: Judged, sign: int) -> str:
    low, high = sorted((sign * judged.low, sign * judged.high))
    return f"{sign * judged.improvement:.3f} [{low:.3f}, {high:.3f}]"
