"""How often the gate errs: the whole gate on simulated answers, without a model.

python benchmarks/gate_errors.py                 # 1,000 runs of each case, a minute
python benchmarks/gate_errors.py --runs 200

Each run has 20 sets of 60 to 1,000 rows (accuracy, every text its own conversation) and judges them as one family, then the
corrections or the texts drawn at random. Printed is the share of runs with that result, and the half width of its 95 % interval.
"""

import argparse
from collections.abc import Callable, Hashable
from functools import cache
from math import sqrt

import numpy as np

from murmura.training.data.example import Example
from murmura.training.gate.held_out import conversations_of
from murmura.training.gate.statistics import Difference, compare
from murmura.training.gate.verdict import (
    Compared,
    Comparison,
    GateResult,
    Lift,
    Verdict,
    judge,
    judge_drawn,
    judge_target,
)
from murmura.training.kinds.figures.outcome import of_accuracy
from murmura.training.recipe.job import Gate

SETS = 20
LEAST, MOST = 60, 1000
RIGHT = 0.9
"""Accuracy of the current version."""
GATE = Gate()
Draw = np.random.Generator


def simulated(draw: Draw, rows: int, discordance: float, loss: float = 0.0, times: int = 1) -> Difference:
    """Answers of two versions that differ on a share of the rows; `loss` is the true difference of their accuracies.

    Each text stands so many `times`.
    """
    shares = [(discordance + loss) / 2, (discordance - loss) / 2, 1 - discordance]
    kind = draw.choice(3, size=rows, p=shares)
    same = draw.random(rows) < RIGHT
    before = np.where(kind == 2, same, kind == 0)
    after = np.where(kind == 2, same, kind == 1)
    repeated = [of_accuracy(np.repeat(each, times)) for each in (before, after)]
    return compare(*repeated, texts_standing(times, rows), resamples=20)


@cache
def texts_standing(times: int, rows: int) -> list[Hashable] | None:
    """Return the conversations of so many texts, each of which stands so many times."""
    return conversations_of([Example(f"text {n // times}") for n in range(rows * times)])


def family(draw: Draw, first: Difference | None = None, times: int = 1) -> list[Comparison]:
    """Judge 20 sets, of which all but `first` have lost nothing."""
    sizes = np.linspace(LEAST, MOST, SETS).round().astype(int).tolist()
    found = [simulated(draw, rows, draw.uniform(0.02, 0.12), times=times) for rows in sizes]
    if first is not None:
        found[-1] = first
    return judge([Compared("task", f"set {n}", each) for n, each in enumerate(found)])


def refused_without_loss(times: int) -> Callable[[Draw], bool]:
    return lambda draw: not GateResult(tuple(family(draw, times=times))).nothing_lost


def loss_found(discordance: float) -> Callable[[Draw], bool]:
    """Return a run with a true loss of 3 points on 1,000 rows."""
    return lambda draw: family(draw, simulated(draw, MOST, discordance, 0.03))[-1].verdict is Verdict.WORSE


def passed(flips: float, learned: float, corrections: int, flip_rows: int) -> Callable[[Draw], bool]:
    """Return a run in which a share of the corrections is right, and one of the wrong rows without feedback."""

    def run(draw: Draw) -> bool:
        right = draw.random(corrections) < learned
        lift = Lift(int(draw.binomial(flip_rows, flips)), flip_rows, GATE.least_lift)
        found = compare(of_accuracy([False] * corrections), of_accuracy(right), resamples=20)
        target = judge_target("task", "corrected", found, least_rows=GATE.least_corrections, lift=lift)
        return GateResult((*family(draw), target)).passed

    return run


def passed_by_drawn(rows: int, discordance: float, learned: float) -> Callable[[Draw], bool]:
    """Return a run judged by texts that were drawn at random, of which the current version gets enough wrong to be judged by.

    Answers are exchangeable on a share of the texts; then a share of those still wrong is learned.
    """

    def run(draw: Draw) -> bool:
        before = np.ones(rows, bool)
        while (~before).sum() < GATE.least_drawn_wrong:
            kind = draw.choice(3, size=rows, p=[discordance / 2, discordance / 2, 1 - discordance])
            same = draw.random(rows) < RIGHT
            before, after = (np.where(kind == 2, same, kind == which) for which in (0, 1))
        after |= draw.random(rows) < learned
        target = judge_drawn("task", "drawn", compare(of_accuracy(before), of_accuracy(after), resamples=20))
        return GateResult((*family(draw), target)).passed

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    cases = [("nothing lost, 20 sets: refused", "at most 5 %", refused_without_loss(1))]
    cases.append(("nothing lost, each text five times: refused", "at most 5 %", refused_without_loss(5)))
    for share in (0.04, 0.06, 0.08, 0.1, 0.12):
        reach = "at least 80 %" if share == 0.06 else ""
        cases.append((f"3 points lost on 1,000 rows, {100 * share:g} % differ: found", reach, loss_found(share)))
    for flips in (0.1, 0.22, 0.4):
        name = f"nothing learned, {100 * flips:g} % flip, 50 corrections: passed"
        cases.append((name, "at most 5 %", passed(flips, flips, 50, 30)))
    for flips, rows in ((0.1, 30), (0.1, 100), (0.22, 30), (0.22, 100)):
        name = f"0 to 70 % of 50 corrections learned, {100 * flips:g} % of {rows} flip: passed"
        cases.append((name, "at least 90 %", passed(flips, 0.7, 50, rows)))
    for rows in (200, 300, 600):
        for share in (0.04, 0.12):
            name = f"nothing learned, {100 * share:g} % of {rows} texts drawn at random differ: passed"
            cases.append((name, "at most 5 %", passed_by_drawn(rows, share, 0.0)))
    for rows in (300, 600):
        name = f"70 % of what was wrong of {rows} texts drawn at random learned, 4 % differ: passed"
        cases.append((name, "at least 90 %", passed_by_drawn(rows, 0.04, 0.7)))
    print("| case | share | wanted |\n| --- | ---: | --- |")
    for name, reach, run in cases:
        share = np.mean([run(np.random.default_rng(seed)) for seed in range(runs)])
        spread = 1.96 * sqrt(share * (1 - share) / runs)
        print(f"| {name} | {100 * share:.1f} % ± {100 * spread:.1f} | {reach} |", flush=True)


if __name__ == "__main__":
    main()
