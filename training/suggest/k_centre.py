"""Core set by greedy k-centre: each choice is the text farthest from all chosen ones (Sener, Savarese 2018). Pure."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_SAME: Final = 1e-12
"""Squared distances of less, as a share of the largest square, are rounding errors."""
_CHUNK: Final = 256


def choose_centres(vectors: Array, count: int, covered: Array | None = None) -> tuple[list[int], list[float]]:
    """Return the rows of at most `count` centres, in the order of their choice, and how far each was from those before.

    `vectors` [N, H] are compared by the Euclidean distance, `covered` [M, H] are those of texts with labels: the choice begins
    from them; without any it begins with the row nearest to the mean. Rows that lie on a centre are not chosen.
    """
    count = min(count, len(vectors))
    if not count:
        return [], []
    middle = vectors.mean(0)
    vectors = vectors.astype(np.float64) - middle
    squares = (vectors**2).sum(1)
    least = _SAME * float(squares.max())
    rows: list[int] = []
    distances: list[float] = []
    if covered is not None and len(covered):
        nearest = np.full(len(vectors), np.inf)
        for begin in range(0, len(covered), _CHUNK):
            centres = covered[begin : begin + _CHUNK].astype(np.float64) - middle
            apart = squares[:, None] - 2 * vectors @ centres.T + (centres**2).sum(1)
            nearest = np.minimum(nearest, apart.min(1))
    else:
        rows, distances = [int(squares.argmin())], [0.0]
        nearest = _apart(vectors, squares, rows[0])
    while len(rows) < count and nearest[farthest := int(nearest.argmax())] > least:
        rows.append(farthest)
        distances.append(float(np.sqrt(nearest[farthest])))
        nearest = np.minimum(nearest, _apart(vectors, squares, farthest))
        nearest[farthest] = 0.0
    return rows, distances


def _apart(vectors: Array, squares: Array, row: int) -> Array:
    """Return the squared distances of all rows from one."""
    return np.asarray(squares - 2 * vectors @ vectors[row] + squares[row])
