"""Paired statistics of two models on the same rows: difference, interval, exact and randomisation tests, power. Pure.

A metric is made of sums over rows: accuracy is sum(right) / sum(1), a micro-F1 is sum(2 tp) / sum(2 tp + fp + fn), BLEU
is made of counts of word sequences. Rows of one conversation are drawn, and exchanged, together.

Interval: the middle 95 % of paired bootstrap resamples (Efron and Tibshirani 1993, chapter 8). Test: McNemar's exact test
where the metric is an accuracy and no conversation changes by more than one row, else a randomisation test that exchanges the
two models' answers by conversation (paired sign flips).
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log2, sqrt
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..kinds.figures.outcome import Array, Outcome, compute_ratio

RESAMPLES: Final = 2000
SIGN_FLIPS: Final = 20_000
POWER: Final = 0.8
_TINY: Final = 1e-12
"""A rounding error is no difference."""
_CHUNK_CELLS: Final = 4_000_000
"""Draws are made in parts of so many cells, so that memory does not grow with the rows."""


@dataclass(frozen=True)
class Difference:
    """Candidate less current on the same rows."""

    rows: int
    conversations: int
    discordant: int
    """Conversations (rows, where each is its own) on which the two models score differently."""
    current: float
    candidate: float
    difference: float
    low: float
    high: float
    """The interval covers the choice of rows, not the seed of training."""
    p_worse: float
    """One-sided: the probability of so great a loss when the two models' answers are exchangeable."""
    p_better: float
    deviation: float
    """Standard deviation of the difference when the answers are exchangeable."""
    exact: bool
    """Whether the test is McNemar's."""


def compare(
    current: Outcome,
    candidate: Outcome,
    conversations: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    sign_flips: int = SIGN_FLIPS,
    seed: int = 0,
) -> Difference:
    """Compare two models on the same rows. The same seed gives the same figures.

    `conversations` names each row's; None: every row is its own.
    """
    rows = len(current.columns)
    if rows != len(candidate.columns) or rows == 0:
        raise ValueError(f"expected the same rows for both, at least one; found {rows} and {len(candidate.columns)}")
    columns, width = np.concatenate([current.columns, candidate.columns], axis=1), current.columns.shape[1]
    sums = _sum_conversations(columns, conversations)
    changed = (sums[:, :width] != sums[:, width:]).any(axis=1)
    exact = _are_accuracies(current, candidate) and bool((np.abs(sums[:, width] - sums[:, 0]) <= 1).all())
    draw = np.random.default_rng(seed)
    low, high = _bootstrap_interval(sums, current.compute, draw, resamples)
    if exact:
        wins = int((sums[:, width] > sums[:, 0]).sum())
        losses = int(changed.sum()) - wins
        p_worse, p_better = mcnemar(wins, losses), mcnemar(losses, wins)
        deviation = sqrt(wins + losses) / rows
    else:
        p_worse, p_better, deviation = _sign_flip(sums, current.compute, changed, draw, sign_flips)
    before, after = current.metric, candidate.metric
    return Difference(
        *(rows, len(sums), int(changed.sum()), before, after, after - before, low, high),
        *(p_worse, p_better, deviation, exact),
    )


def mcnemar(wins: int, losses: int) -> float:
    """Return the one-sided p of McNemar's exact test for a loss: P(at most `wins` of wins + losses), each as likely."""
    return float(min(1.0, binomial_cdf(wins + losses, 0.5)[wins]))


@lru_cache(maxsize=256)
def binomial_cdf(trials: int, probability: float) -> Array:
    """Return P(X <= k) for k from 0 to `trials`."""
    if probability <= 0:
        return np.ones(trials + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    k = np.arange(trials + 1)
    log_mass = logs[-1] - logs - logs[::-1] + k * np.log(probability) + (trials - k) * np.log1p(-probability)
    return np.asarray(np.cumsum(np.exp(log_mass)))


def smallest_loss(found: Difference, level: float, allowance: float) -> float | None:
    """Return the smallest true loss that a test at `level` would have found with a probability of 80 %.

    It is that of a set with as many discordant conversations; None when no loss could have been found. Of an accuracy it
    is computed exactly, else with the normal approximation of the randomisation test.
    """
    # With n conversations that are all lost the smallest p is 2^-n.
    least = max(ceil(-log2(level)), int(allowance * found.conversations + _TINY) + 1)
    if least > found.conversations:
        return None
    if not found.exact:
        normal = NormalDist()
        needed = (normal.inv_cdf(1 - level) + normal.inv_cdf(POWER)) * found.deviation
        loss = max(needed, least / found.conversations)
        return loss if loss <= 1 else None
    if found.discordant >= least and _power(found, found.discordant, level, allowance) >= POWER:
        low, high = 0, found.discordant
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _power(found, middle, level, allowance) >= POWER else (middle, high)
        return high / found.rows
    return max(least, found.discordant + 1) / found.rows


def _power(found: Difference, lost: int, level: float, allowance: float) -> float:
    """Return the power to find a net loss of `lost` rows among the discordant ones."""
    trials = found.discordant
    most_wins = int(np.searchsorted(binomial_cdf(trials, 0.5), level * (1 + _TINY), side="right")) - 1
    within_allowance = ceil((trials - allowance * found.rows) / 2 - _TINY) - 1
    most_wins = min(most_wins, within_allowance)
    if most_wins < 0:
        return 0.0
    return float(binomial_cdf(trials, (trials - lost) / (2 * trials))[most_wins])


def _are_accuracies(*outcomes: Outcome) -> bool:
    """Return whether each row of the outcomes is right or wrong."""
    return all(
        each.compute is compute_ratio
        and bool((each.columns[:, 1] == 1).all())
        and bool(np.isin(each.columns, (0, 1)).all())
        for each in outcomes
    )


def _sum_conversations(columns: Array, conversations: Sequence[Hashable] | None) -> Array:
    """Return the sums of the columns by conversation, [conversations, K], in the order of their first rows."""
    if conversations is None:
        return columns
    numbers: dict[Hashable, int] = {}
    of_row = [numbers.setdefault(name, len(numbers)) for name in conversations]
    sums = np.zeros((len(numbers), columns.shape[1]))
    np.add.at(sums, of_row, columns)
    return sums


def _bootstrap_interval(
    sums: Array, compute: Callable[[Array], Array], draw: np.random.Generator, resamples: int
) -> tuple[float, float]:
    # Rows with equal sums are one cell: how often each cell is drawn is all that matters.
    cells, counts = np.unique(sums, axis=0, return_counts=True)
    share, found = counts / len(sums), []
    chunk = max(1, _CHUNK_CELLS // len(cells))
    for start in range(0, resamples, chunk):
        times = draw.multinomial(len(sums), share, size=min(chunk, resamples - start))
        drawn = times @ cells
        before, after = np.split(drawn, 2, axis=1)
        found.append(compute(after) - compute(before))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975]).tolist()
    return low, high


def _sign_flip(
    sums: Array,
    compute: Callable[[Array], Array],
    changed: NDArray[np.bool_],
    draw: np.random.Generator,
    sign_flips: int,
) -> tuple[float, float, float]:
    """Return the p for worse, that for better, and the deviation, over draws that exchange the models by conversation."""
    (before, after), (left_rows, right_rows) = np.split(sums.sum(axis=0), 2), np.split(sums, 2, axis=1)
    both, change = before + after, (right_rows - left_rows)[changed]
    # Of conversations that change alike, how many are exchanged is all that matters.
    cells, counts = np.unique(change, axis=0, return_counts=True)
    observed = compute(after) - compute(before)
    found = [np.empty(0)]
    chunk = max(1, _CHUNK_CELLS // max(1, len(cells)))
    for start in range(0, sign_flips, chunk):
        exchanged = draw.binomial(counts, 0.5, size=(min(chunk, sign_flips - start), len(cells)))
        left = before + exchanged @ cells
        found.append(compute(both - left) - compute(left))
    drawn = np.concatenate(found)
    worse = (1 + (drawn <= observed + _TINY).sum()) / (1 + sign_flips)
    better = (1 + (drawn >= observed - _TINY).sum()) / (1 + sign_flips)
    return float(worse), float(better), float(drawn.std())
