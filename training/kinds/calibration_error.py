"""Expected calibration error: how far the scores of answers lie from the share of them that is right."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def calibration_error(scores: Array, right: Array, *, bins: int = 15) -> float:
    """Return the mean distance of score and accuracy over bins of equal width. Both [N], N at least 1: `right[i]` says
    whether that is so which has the score `scores[i]`.
    """
    at = np.minimum((scores * bins).astype(int), bins - 1)
    parts = [(at == number) for number in range(bins)]
    return float(sum(part.mean() * abs(right[part].mean() - scores[part].mean()) for part in parts if part.any()))
