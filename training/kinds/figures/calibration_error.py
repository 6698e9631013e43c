"""Expected calibration error: how far the scores of answers lie from the share of them that is right."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .intervals import Sampled

Array = NDArray[Any]
BINS: Final = 15
LEAST: Final = 10
"""Answers of a bin: the share of fewer that is right says little, so few answers have fewer bins."""


def starts_of_bins(scores: Array, bins: int) -> Array:
    """Return where bins of as many answers each begin among sorted scores [N], N at least 1; equal scores share a bin."""
    return np.unique(np.searchsorted(scores, scores[np.arange(bins) * len(scores) // bins]))


def calibration_error(scores: Array, right: Array) -> float:
    """Return the mean distance of score and accuracy over bins of as many answers each. Both [N], N at least 1: `right[i]` says
    whether that is so which has the score `scores[i]`.
    """
    sampled = sample_calibration_error(scores, right)
    return float(sampled.compute(sampled.counts @ sampled.columns))


def sample_calibration_error(scores: Array, right: Array) -> Sampled:
    """Return the same as what can be drawn again: by bin the rows, what is right, and the sum of the scores."""
    bins = max(1, min(BINS, len(scores) // LEAST))
    ordered = np.sort(scores)
    lowest = ordered[starts_of_bins(ordered, bins)]
    at, hot = np.searchsorted(lowest, scores, "right") - 1, np.eye(len(lowest))
    columns = np.concatenate([hot[at], hot[at] * right[:, None], hot[at] * scores[:, None]], axis=1)

    def compute(sums: Array) -> Array:
        rows, hits, points = np.split(sums, 3, axis=-1)
        return np.asarray(np.abs(hits - points).sum(-1) / rows.sum(-1))

    return Sampled(columns, np.ones(len(columns), np.int64), compute)
