"""Centres of labels, and how far from the nearest one a text may lie. Pure.

The nearest class mean as a detector of what is far from all classes (Mensink et al. 2013; Lee et al. 2018, there with the
distance of Mahalanobis): of few rows a covariance would be noise, so the cosine is taken.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FLAGGED: Final = 0.05
"""So much of the rows of the labels may lie too far away, each seen from the centres that the others make."""
STEEPNESS: Final = 4.0
"""A text as near as the median row has odds of exp(4) to 1 for the best label against out of scope."""
NARROWEST: Final = 0.01
"""The median row lies at least so much nearer than the limit, as a cosine."""
Array = NDArray[Any]


def find_centres(states: Array, labels: Sequence[int], count: int) -> Array:
    """Return for each of `count` labels the mean direction [count, W] of its states [N, W], of length 1; zeros without any."""
    directions = _unit(states)
    sums = np.zeros((count, states.shape[1]))
    np.add.at(sums, np.asarray(labels, int), directions)
    return _unit(sums).astype(np.float32)


def find_nearest(states: Array, centres: Array) -> Array:
    """Return the cosine [N] of each of states [N, W] with the nearest of centres [C, W]; those of zeros are none."""
    made = centres[np.abs(centres).any(1)]
    nearest: Array = (_unit(states) @ made.T.astype(np.float64)).max(1)
    return nearest


def choose_limits(nearest: Array, flagged: float = FLAGGED) -> tuple[float, float]:
    """Return scale and limit for the cosines [N] of rows that are in scope: a share `flagged` of them lies beyond the limit.

    The limit is the middle between two rows. The odds of the best label against out of scope are exp(scale * (s - limit)).
    """
    ordered = np.sort(nearest.astype(np.float64))
    beyond = int(flagged * len(ordered) + 1e-9)
    limit = float(ordered[beyond - 1 : beyond + 1].mean()) if beyond else float(ordered[0])
    return STEEPNESS / max(NARROWEST, float(np.median(ordered)) - limit), limit


def set_outside(logits: Array, nearest: Array, limits: tuple[float, float], outside: int) -> Array:
    """Return logits [N, C] with that of the out-of-scope label as the head computes it."""
    scale, limit = limits
    found = logits.copy()
    found[:, outside] = -np.inf
    found[:, outside] = found.max(1) + scale * (limit - nearest)
    return found


def _unit(vectors: Array) -> Array:
    wide = vectors.astype(np.float64)
    unit: Array = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit
