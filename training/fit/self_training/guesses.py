"""Which guesses are learned from. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LEAST_ROWS: Final = 10
"""A threshold that fewer validation rows reach says nothing."""
Array = NDArray[Any]


def choose_threshold(scores: Array, right: Array, precision: float) -> float | None:
    """Return the lowest score from which on a share `precision` of the rows is right; None where there is none.

    scores [N] of the guesses, right [N] whether they are. The middle between two scores is taken, as for other thresholds.
    """
    order = np.argsort(-scores, kind="stable")
    sure, hits = scores[order], np.cumsum(right[order])
    reached = np.arange(1, len(sure) + 1)
    ends = np.append(sure[1:] < sure[:-1], True)  # rows of equal scores stand on one side
    allowed = np.flatnonzero(ends & (hits >= precision * reached - 1e-9) & (reached >= LEAST_ROWS))
    if not len(allowed):
        return None
    last = int(allowed[-1])
    below = sure[last + 1] if last + 1 < len(sure) else 0.0
    return float((sure[last] + below) / 2)


def choose_balanced(scores: Array, guesses: Sequence[int], threshold: float, most: int) -> list[int]:
    """Return the texts whose score reaches the threshold, of each label that is guessed at most `most`, the surest first."""
    by_label: dict[int, list[int]] = defaultdict(list)
    for at in np.argsort(-scores, kind="stable").tolist():
        if scores[at] >= threshold and len(by_label[guesses[at]]) < most:
            by_label[guesses[at]].append(at)
    return sorted(at for texts in by_label.values() for at in texts)
