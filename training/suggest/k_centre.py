"""Core set by greedy k-centre: each choice is the text farthest from all chosen ones (Sener, Savarese 2018). Pure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def choose_centres(vectors: Array, count: int, covered: Array | None = None) -> tuple[list[int], list[float]]:
    """Return the rows of at most `count` centres, in the order of their choice, and how far each was from those before.

    `vectors` [N, H] are compared by the Euclidean distance, `covered` [M, H] are those of texts with labels: the choice begins
    from them; without any it begins with the row nearest to the mean. Rows that lie on a centre are not chosen.
    """
    count = min(count, len(vectors))
    if not count:
        return [], []
    rows: list[int] = []
    distances: list[float] = []
    if covered is not None and len(covered):
        nearest = np.full(len(vectors), np.inf)
        for each in covered:
            nearest = np.minimum(nearest, _squares(vectors, each))
    else:
        first = int(_squares(vectors, vectors.mean(0)).argmin())
        rows, distances = [first], [0.0]
        nearest = _squares(vectors, vectors[first])
    while len(rows) < count and (farthest := int(nearest.argmax())) not in rows and nearest[farthest] > 0:
        rows.append(farthest)
        distances.append(float(np.sqrt(nearest[farthest])))
        nearest = np.minimum(nearest, _squares(vectors, vectors[farthest]))
        nearest[farthest] = 0.0
    return rows, distances


def _squares(vectors: Array, centre: Array) -> Array:
    return np.asarray(((vectors - centre) ** 2).sum(1))
