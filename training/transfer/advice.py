"""What follows from a comparison, for each task: nothing, leave it out, more steps, or a teacher. Pure.

A task is hurt where the whole interval of its difference lies below 0. Then, in this order:

1. its gradients point against those of another task (Yu et al. 2020 call such tasks conflicting): it is left out, and gets a
   model of its own;
2. its training loss ended higher than alone: it has not had its steps, and gets more;
3. neither: it is learned as far as alone and answers worse; a teacher that was trained on it alone (Clark et al. 2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .findings import Affinity, Transfer, affinity_with_others

CONFLICT: Final = -0.05
"""Gradients whose mean cosine lies below, in every seed below 0, conflict. Of independent ones it is near 0."""
BEHIND: Final = 1.05
"""A joint training loss so many times as high as that of the training alone is behind it."""
MARGIN: Final = 1.0
"""Points. A comparison that would not have shown a loss so great says little."""


class Cure(StrEnum):
    NOTHING = "nothing"
    MORE_SEEDS = "more seeds"
    MORE_STEPS = "more steps"
    LEAVE_OUT = "leave out"
    TEACHERS = "teachers"


@dataclass(frozen=True)
class Advice:
    task: str
    cure: Cure
    reason: str
    """One sentence."""
    keys: str = ""
    """What to write into the recipe; empty where nothing."""


def advise(found: Sequence[Transfer], affinities: Sequence[Affinity]) -> list[Advice]:
    """Return the advice for each task."""
    return [_advise(each, affinities) for each in found]


def _advise(found: Transfer, affinities: Sequence[Affinity]) -> Advice:
    task, difference = found.task, found.difference
    if difference.low is None or difference.high is None:
        return Advice(task, Cure.MORE_SEEDS, "One seed has no interval: nothing follows from it.", "--seeds 0 1 2")
    if difference.low > 0:
        return Advice(task, Cure.NOTHING, f"Joint training helps, by at least {difference.low:.2f} points.")
    if difference.high < 0:
        return _cure(found, affinities)
    if found.smallest_loss is not None and found.smallest_loss > MARGIN:
        reason = f"No difference is seen, but a loss below {found.smallest_loss:.2f} points would be missed."
        return Advice(task, Cure.MORE_SEEDS, reason, "--seeds with more of them, or more test rows")
    return Advice(task, Cure.NOTHING, f"No difference is seen, and a loss of {MARGIN:g} point would be.")


def _cure(found: Transfer, affinities: Sequence[Affinity]) -> Advice:
    task, worst = found.task, affinity_with_others(found.task, affinities)
    if worst is not None and worst.mean < CONFLICT and max(worst.by_seed) < 0:
        other = worst.other if worst.one == task else worst.one
        reason = f"Joint training hurts, and its gradients point against those of {other} (cosine {worst.mean:+.2f})."
        return Advice(task, Cure.LEAVE_OUT, reason, f"tasks.{task}.skip: true")
    if found.losses is not None and found.losses[1] > BEHIND * found.losses[0]:
        alone, joint = found.losses
        reason = f"Joint training hurts, and its training loss ends at {joint:.3g}, alone at {alone:.3g}."
        return Advice(task, Cure.MORE_STEPS, reason, f"tasks.{task}.epochs: twice as many")
    reason = "Joint training hurts, although no gradients conflict and it is learned as far as alone."
    return Advice(task, Cure.TEACHERS, reason, f"teachers: {{{task}: FOLDER}}")
