"""Calibration and thresholds, chosen on validation rows after the last step and never on a test part."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.model.decoding import sigmoid, softmax
from ..schemas.manifest import Calibration

Array = NDArray[Any]


def temperature_of(logits: Array, targets: Array) -> Calibration:
    """Return the T that minimises the negative log-likelihood of softmax(logits / T) (Guo et al. 2017).

    logits [N, C], targets [N] class numbers. Kept within 0.25 and 4: beyond that the validation part is too easy or
    too small to say anything.
    """
    every, scaled = np.arange(len(targets)), logits.astype(np.float64)

    def loss(temperature: float) -> float:
        return float(-np.log(softmax(scaled / temperature)[every, targets] + 1e-30).mean())

    return Calibration(temperature=_least(loss))


def temperature_of_labels(logits: Array, targets: Array) -> Calibration:
    """The same for sigmoid: logits and targets [N, C]."""
    sign = 1 - 2 * targets

    def loss(temperature: float) -> float:
        return float(np.logaddexp(0, sign * logits / temperature).mean())

    return Calibration(temperature=_least(loss))


def _least(loss: Callable[[float], float]) -> float:
    """Search temperatures on a logarithmic grid, then once more around the best: the loss has one minimum."""
    low, high = 0.25, 4.0
    for _ in range(2):
        grid = np.geomspace(low, high, 25)
        best = int(np.argmin([loss(float(t)) for t in grid]))
        low, high = float(grid[max(0, best - 1)]), float(grid[min(24, best + 1)])
    return round(float(grid[best]), 4)


def probabilities(logits: Array, calibration: Calibration) -> Array:
    """Return softmax(logits / T), [N, C]."""
    return softmax(logits.astype(np.float64) / calibration.temperature)


def withholding_threshold(genuine: Sequence[float], others: Sequence[float], max_flagged: float | None) -> float:
    """Return the score from which on a text is withheld; scores are high for texts that should be.

    Without `max_flagged` the best mean of the share of genuine texts kept and of others caught; with it the most others
    caught among thresholds that withhold at most that share of the genuine. The middle of the gap is taken, so that a
    score at the edge of the sample decides nothing.
    """
    inner, outer = np.sort(np.asarray(genuine)), np.sort(np.asarray(others))
    edges = np.unique(np.concatenate([[0.0], inner, outer, [1.0]]))
    cuts = (edges[1:] + edges[:-1]) / 2
    flagged = 1 - np.searchsorted(inner, cuts, side="left") / len(inner)
    caught = 1 - np.searchsorted(outer, cuts, side="left") / len(outer)
    worth = caught - flagged if max_flagged is None else np.where(flagged <= max_flagged, caught - 1e-6 * flagged, -1.0)
    return round(float(cuts[int(np.argmax(worth))]), 4)


def label_threshold(logits: Array, targets: Array, calibration: Calibration) -> float:
    """Return the one threshold for all labels with the best micro-F1; logits and targets [N, C]."""
    scores, truth = sigmoid(logits / calibration.temperature), targets > 0.5
    best, chosen = -1.0, 0.5
    for cut in np.arange(0.05, 0.96, 0.01):
        guess = scores >= cut
        f1 = 2 * (guess & truth).sum() / max(1, guess.sum() + truth.sum())
        if f1 > best:
            best, chosen = float(f1), round(float(cut), 2)
    return chosen
