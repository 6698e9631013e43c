"""The table of `generation.py`: figures beside their aims, what is sent of generated replies, and joint training against training alone. Pure."""

from collections import Counter
from collections.abc import Hashable, Sequence, Set
from math import hypot
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from murmura.runtime.generation.reply_vocabulary import list_slots
from murmura.training.gate.statistics import compare
from murmura.training.kinds.outcome import Array, Outcome


class Figure(NamedTuple):
    """A figure and its aim; without bounds it is printed alone."""

    name: str
    value: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool:
        if self.at_least is None and self.at_most is None:
            return True
        if self.value is None:
            return False
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    def __str__(self) -> str:
        shown = f"{self.name} {'-' if self.value is None else format(self.value, '.1f')}"
        aims = [f"{sign} {aim:g}" for sign, aim in ((">=", self.at_least), ("<=", self.at_most)) if aim is not None]
        return f"{shown} ({', '.join(aims)}{'' if self.reached else ', missed'})" if aims else shown


def describe_row(what: str, figures: Sequence[Figure]) -> str:
    """Return a row of the table as a line."""
    return f"{what} | {' | '.join(map(str, figures))}"


class Sent(NamedTuple):
    """What goes out of replies, in percent; slot figures are shares of the references' slots, None where these have none."""

    generated: float
    """Replies that go out as generated; the templates of the others go out instead."""
    missing: float | None
    """Slots of the references that what goes out does not name."""
    further: float | None
    """Slots that what goes out names and the references do not. They have a value: no others go out."""


def count_sent(
    replies: Sequence[str], ended: Sequence[bool], references: Sequence[str], values: Sequence[Set[str]]
) -> Sent:
    """Count what a dialogue agent would send: a reply that has ended, names the slots of its template that have a value, and none without.

    The data have no rules with templates: a row's own reply stands for the template of its rule. `values`: its slots with a value.
    """
    sent = missing = further = every = 0
    for reply, end, reference, known in zip(replies, ended, references, values, strict=True):
        said, wanted = Counter(list_slots(reply)), Counter(list_slots(reference))
        every += wanted.total()
        if end and reply.strip() and wanted.keys() & known <= said.keys() <= known:
            sent += 1
            missing += (wanted - said).total()
            further += (said - wanted).total()
    slots = (100 * missing / every, 100 * further / every) if every else (None, None)
    return Sent(100 * sent / len(replies), *slots)


class SeedsDifference(NamedTuple):
    """Joint less alone, the mean over the seeds, in points."""

    alone: float
    joint: float
    difference: float
    low: float | None
    high: float | None
    """The 95 % interval; None of one seed, whose spread is not known."""
    by_seed: list[float]


def compare_seeds(
    alone: Sequence[Outcome], joint: Sequence[Outcome], conversations: Sequence[Hashable] | None = None
) -> SeedsDifference:
    """Compare two ways of training on the same rows, a pair of outcomes a seed.

    The paired bootstrap draws rows (conversations) for all seeds together. Seeds spread independently of the rows: half of a
    t interval of the seeds' differences is added to each side in quadrature.
    """
    found = compare(_stack(alone), _stack(joint), conversations, sign_flips=1)
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
        return np.mean([compute(each) for each in np.split(sums, len(outcomes), axis=-1)], axis=0)

    return Outcome(np.concatenate([each.columns for each in outcomes], axis=1), compute_mean)


def describe_difference(what: str, found: SeedsDifference, aim: float) -> tuple[str, bool]:
    """Return the row of a task's difference, and whether the whole interval lies above the aim."""
    reached = found.low is not None and found.low > aim
    between = "one seed, no interval" if found.low is None else f"[{found.low:+.2f}, {found.high:+.2f}]"
    seeds = ", ".join(f"{each:+.2f}" for each in found.by_seed)
    line = f"{what} | alone {found.alone:.1f} | joint {found.joint:.1f} | {found.difference:+.2f} {between}"
    return f"{line} (> {aim:g}{'' if reached else ', missed'}) | by seed {seeds}", reached
