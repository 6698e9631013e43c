"""Says before an experiment how likely it ends with a decision, and when, by simulating its own rules."""

from dataclasses import dataclass, replace

import numpy as np

from .simulation import Setup, simulate

RUNS = 400


@dataclass(frozen=True, slots=True)
class Power:
    """What came of simulated experiments with one true improvement."""

    improvement: float
    promoted: float
    """Share of the experiments."""
    stopped: float
    """Share of the experiments."""
    median_units: float | None
    """Units of both sides at which half of those that ended had ended; None where none did."""


def estimate_power(setup: Setup, improvements: tuple[float, ...], runs: int = RUNS, seed: int = 0) -> list[Power]:
    """Return what becomes of experiments with each of these true improvements."""
    return [_estimate(replace(setup, improvement=improvement), runs, seed) for improvement in improvements]


def _estimate(setup: Setup, runs: int, seed: int) -> Power:
    simulated = simulate(setup, runs, seed)
    ended = np.concatenate((simulated.promoted_at, simulated.stopped_at))
    ended = ended[~np.isnan(ended)]
    median = float(np.median(ended)) if len(ended) else None
    return Power(setup.improvement, simulated.promoted, simulated.stopped, median)
