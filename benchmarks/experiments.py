"""Experiments by the rules that judge real ones, simulated: how often they end wrongly, whether intervals hold, how long they take.

    python benchmarks/experiments.py [--short]

A cell is one share of the candidate and one rate of the control; each run is looked at 1,000 times and ends at its first
decision. Its goal and its guardrail are one ratio. Clustered units have four chances on average, which correlate by 0.3.
Targets: between equal versions at most 5 % of the runs end in each cell (upper limit of the 95 % interval: 6 %), and the
intervals of at least 95 % of the runs hold the true difference at every look.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import replace

from murmura.runtime.experiments.power import Power, estimate_power
from murmura.runtime.experiments.simulation import Setup, Simulated, simulate

SHARES = (0.5, 0.05)
RATES = (0.5, 0.8, 0.9, 0.95, 0.99)
RUNS = 2000
IMPROVEMENTS = (0.01, 0.02, 0.05, -0.02, -0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="400 runs a cell instead of 2,000, no clustered units")
    parser.add_argument("--data", help="not read; every benchmark takes it")
    short = parser.parse_args().short
    runs = 400 if short else RUNS
    print(f"{runs:,} runs a cell, 1,000 looks each\n")
    print(
        f"{'share':>5} {'rate':>5} {'units':>9} {'chances':>7} {'difference':>10} {'ended wrongly':>22} {'intervals hold':>14} {'CPU-s':>6}"
    )
    worst = max(_print_cell(setup, runs) for setup in _cells(short))
    print(f"\nlargest share of equal versions that ended by themselves: {worst:.1%}\n")
    print("how likely an experiment with units of one chance ends rightly, by 100,000 units, and when")
    print(f"{'share':>5} {'rate':>5} {'improvement':>11} {'promoted':>9} {'stopped':>8} {'median units':>13}")
    for share in SHARES:
        for power in estimate_power(
            Setup(share, 0.9, units=100_000, min_units=1000), IMPROVEMENTS, runs=min(runs, 400)
        ):
            _print_power(share, power)


def _cells(short: bool) -> Iterator[Setup]:
    for share in SHARES:
        for rate in RATES:
            rarer = min(rate, 1.0 - rate)
            alone = Setup(share, rate, units=1000 * round(20 * max(1.0, 0.2 / rarer) * (5 if share < 0.5 else 1)))
            yield alone
            yield replace(alone, improvement=-rarer / 5)
            if not short:
                yield replace(alone, units=40_000, unit_weight=4.0, correlation=0.3)


def _print_cell(setup: Setup, runs: int) -> float:
    """Print a row; return the share of runs that ended, 0 for versions that differ."""
    began = time.process_time()
    simulated = simulate(setup, runs)
    ended = _count_wrong(setup, simulated)
    low, high = _interval(ended, runs)
    print(
        f"{setup.share:5.2f} {setup.rate:5.2f} {setup.units:9,} {setup.unit_weight:7.0f} {setup.improvement:+10.3f}"
        f" {ended:8.1%} [{low:.1%}, {high:.1%}] {simulated.coverage:14.1%} {time.process_time() - began:6.1f}",
        flush=True,
    )
    return ended if setup.improvement == 0.0 else 0.0


def _count_wrong(setup: Setup, simulated: Simulated) -> float:
    """Return the share of runs that ended, of versions that differ those that ended the wrong way."""
    if setup.improvement == 0.0:
        return simulated.promoted + simulated.stopped
    return simulated.promoted if setup.improvement < 0.0 else simulated.stopped


def _interval(share: float, runs: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    z = 1.96
    middle = (share + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z / (1 + z * z / runs) * math.sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs))
    return max(middle - half, 0.0), middle + half


def _print_power(share: float, power: Power) -> None:
    median = f"{power.median_units:13,.0f}" if power.median_units else f"{'-':>13}"
    print(
        f"{share:5.2f} {0.9:5.2f} {power.improvement:+11.2f} {power.promoted:9.1%} {power.stopped:8.1%} {median}",
        flush=True,
    )


if __name__ == "__main__":
    main()
