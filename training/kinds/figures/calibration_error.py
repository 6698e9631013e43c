"""Expected calibration error: how far the scores of answers lie from the share of them that is right."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .intervals import Sampled

Array = NDArray[Any]
BINS: Final = 15


def calibration_error(scores: Array, right: Array, *, bins: int = BINS) -> float:
    """Return the mean distance of score and accuracy over bins of equal width. Both [N], N at least 1: `right[i]` says
    whether that is so which has the score `scores[i]`.
    """
    at = np.minimum((scores * bins).astype(int), bins - 1)
    parts = [(at == number) for number in range(bins)]
    return float(sum(part.mean() * abs(right[part].mean() - scores[part].mean()) for part in parts if part.any()))


def sample_calibration_error(scores: Array, right: Array, *, bins: int = BINS) -> Sampled:
    """Return the same as what can be drawn again: by bin the rows, what is right, and the sum of the scores."""
    at, hot = np.minimum((scores * bins).astype(int), bins - 1), np.eye(bins)
    columns = np.concatenate([hot[at], hot[at] * right[:, None], hot[at] * scores[:, None]], axis=1)

    def compute(sums: Array) -> Array:
        rows, hits, points = np.split(sums, 3, axis=-1)
        return np.asarray(np.abs(hits - points).sum(-1) / rows.sum(-1))

    return Sampled(columns, np.ones(len(columns), np.int64), compute)
