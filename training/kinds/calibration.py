"""Calibration and thresholds, chosen on validation rows after the last step and never on a test part.

Scores are rounded as the decoders publish them, and a threshold lies between two of them at full precision, so that what
is chosen here is what is decided when the model serves.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...runtime.model.decoding import PLACES, score_labels, sigmoid, softmax
from ...schemas.manifest import BetaCalibration, Calibration, ThresholdRows

Array = NDArray[Any]
SPREAD: Final = 0.4
"""Standard deviation of log T before any row is seen, and of the shift and the logarithms of the slopes of a beta calibration.
Some 20 rows count as much; of the values tried (0.2 to 0.6) this one loses least likelihood on new rows from 5 to 300 rows."""
COLDEST: Final = 0.25
HOTTEST: Final = 4.0
FEW_ROWS: Final = 50
"""With fewer rows a temperature or a threshold says little about the next text."""
UNDECIDED: Final = 0.5
"""The label threshold where no row says anything."""


def temperature_of(logits: Array, targets: Array) -> Calibration:
    """Return the most likely T of softmax(logits / T) (Guo et al. 2017), drawn towards 1 where rows are few.

    logits [N, C], targets [N] class numbers.
    """
    every, scaled = np.arange(len(targets)), logits.astype(np.float64)

    def loss(temperature: float) -> float:
        likelihood = np.log(softmax(scaled / temperature)[every, targets] + 1e-30).sum()
        return float(np.log(temperature) ** 2 / (2 * SPREAD**2) - likelihood)

    low, high = COLDEST, HOTTEST
    for _ in range(3):  # a logarithmic grid, twice more around the best
        grid = np.geomspace(low, high, 25)
        best = int(np.argmin([loss(float(t)) for t in grid]))
        low, high = float(grid[max(0, best - 1)]), float(grid[min(24, best + 1)])
    return Calibration(temperature=round(float(grid[best]), 4))


def beta_of_labels(logits: Array, targets: Array) -> Calibration:
    """Return the most likely beta calibration (Kull, Silva Filho, Flach 2017) of sigmoid scores, drawn towards the scores as they are.

    logits and targets [N, C]. One temperature is mostly about the many labels that no text has: those that are named stay too
    sure. Slopes of their own below and above one half, and a shift, fit both.
    """
    from scipy.optimize import minimize  # noqa: PLC0415  (takes half a second)

    scaled = logits.astype(np.float64).ravel()
    truth, below, above = targets.ravel() > 0.5, np.logaddexp(0, -scaled), np.logaddexp(0, scaled)

    def loss(free: Array) -> tuple[float, Array]:
        low, high, shift = np.exp(free[0]), np.exp(free[1]), free[2]
        found = high * above - low * below + shift
        rest = sigmoid(found) - truth
        slope = np.array([-low * (below @ rest), high * (above @ rest), rest.sum()])
        value = np.logaddexp(0, np.where(truth, -found, found)).sum() + (free**2).sum() / (2 * SPREAD**2)
        return float(value), slope + free / SPREAD**2

    ends = (-np.log(HOTTEST), -np.log(COLDEST))
    low, high, shift = minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B", bounds=[ends, ends, (None, None)]).x
    return Calibration(
        beta=BetaCalibration(
            low=round(float(np.exp(low)), 4), high=round(float(np.exp(high)), 4), shift=round(float(shift), 4)
        )
    )


def count_rows(others: NDArray[np.bool_]) -> ThresholdRows:
    """Count the rows that a threshold was chosen on; `others` [N] are those that it has to withhold."""
    return ThresholdRows(genuine=int((~others).sum()), others=int(others.sum()))


def describe_rows(rows: ThresholdRows | None, genuine: str, others: str, *, few: bool) -> str:
    """Return on how many rows a threshold was chosen, in words; empty where it is not known."""
    if rows is None:
        return ""
    return f" (chosen on {rows.genuine} rows {genuine} and {rows.others} {others}{', few' if few else ''})"


def served_scores(logits: Array, calibration: Calibration) -> Array:
    """Return softmax(logits / T) as published, [N, C]."""
    return softmax(logits.astype(np.float64) / calibration.temperature).round(PLACES)


def withholding_threshold(genuine: Sequence[float], others: Sequence[float], max_flagged: float | None) -> float:
    """Return the out-of-scope score in [0, 1] from which on a text is withheld, for published scores.

    Without `max_flagged` the best mean of the share of genuine texts kept and of others caught; with it the most others
    caught among thresholds that withhold at most that share of the genuine. Among equally good ones the highest, which
    withholds the fewest genuine texts, and where no threshold keeps `max_flagged` that one, too. The middle between two
    scores is taken, so that a score at the edge of the sample decides nothing.
    """
    return _cut(np.asarray(genuine, np.float64), np.asarray(others, np.float64), max_flagged, bottom=0.0, top=1.0)


def accept_threshold(genuine: Sequence[float], others: Sequence[float], max_flagged: float | None) -> float:
    """Return the winner's score below which a text is withheld, by the same rules."""
    # Negated, so that a score below the threshold is one above it; negation is exact.
    return -_cut(-np.asarray(genuine, np.float64), -np.asarray(others, np.float64), max_flagged, bottom=-1.0, top=0.0)


def _cut(inner: Array, outer: Array, max_flagged: float | None, *, bottom: float, top: float) -> float:
    """Return the cut from which on scores are withheld. Shares are compared as whole numbers, so that ties are ties."""
    inner, outer = np.sort(inner), np.sort(outer)
    cuts = _middles(np.concatenate([inner, outer]), bottom, top)
    flagged = len(inner) - np.searchsorted(inner, cuts, side="left")
    caught = len(outer) - np.searchsorted(outer, cuts, side="left")
    if max_flagged is None:
        allowed = flagged < len(inner)  # withholding everything is no way of telling texts apart
        worth = caught * len(inner) - flagged * len(outer)
    else:
        allowed = flagged <= max_flagged * len(inner) + 1e-9
        worth = caught * (len(inner) + 1) - flagged
    if not allowed.any():
        return float(cuts[-1])
    best = np.flatnonzero(allowed & (worth == worth[allowed].max()))
    return float(cuts[best[-1]])


def _middles(scores: Array, bottom: float, top: float) -> Array:
    """Return the middles between neighbouring scores, ascending; the ends of the range are neighbours, too."""
    edges = np.unique(np.concatenate([[bottom], scores, [top]]))
    middles: Array = (edges[1:] + edges[:-1]) / 2
    return middles


def label_threshold(logits: Array, targets: Array, calibration: Calibration) -> float:
    """Return the one threshold for all labels with the best micro-F1; logits and targets [N, C].

    It lies in the middle between two published scores; among equally good ones it is the one nearest to one half, which it
    is where no row has a label, or none can be named rightly.
    """
    scores, truth = score_labels(logits, calibration).round(PLACES), targets > 0.5
    if not truth.any():
        return UNDECIDED
    cuts = _middles(scores.ravel(), 0.0, 1.0)
    named = scores.size - np.searchsorted(np.sort(scores.ravel()), cuts, side="left")
    right = truth.sum() - np.searchsorted(np.sort(scores[truth]), cuts, side="left")
    f1 = 2 * right / np.maximum(1, named + truth.sum())
    best = cuts[f1 == f1.max()]
    return float(best[np.abs(best - UNDECIDED).argmin()]) if f1.max() > 0 else UNDECIDED
