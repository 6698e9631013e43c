"""What scores out of fold say of a head that has learned all its rows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...kinds.figures.intervals import wilson
from ...prepare.data_report import Confusion, CrossValidation

NAMED: Final = 5


def cross_validate(
    logits: NDArray[Any], targets: Sequence[int], labels: Sequence[str], scope: str | None
) -> CrossValidation:
    """Return the share of rows that are right, forced to a label in scope, with its interval (Wilson 1927), the share that is
    taken to be out of scope, and the labels that are confused most; logits [N, C] out of fold, targets [N]. Rows out of scope
    are left out.
    """
    truth = np.asarray(targets)
    if scope is not None and (inside := truth != labels.index(scope)).any():
        logits, truth = logits[inside], truth[inside]
    inner, withheld = logits.copy(), 0.0
    if scope is not None:
        outside = labels.index(scope)
        withheld = float((logits.argmax(1) == outside).mean())
        inner[:, outside] = -np.inf
    guess = inner.argmax(1)
    right = int((guess == truth).sum())
    pairs = Counter((labels[a], labels[b]) for a, b in zip(truth, guess, strict=True) if a != b)
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:NAMED]
    interval = wilson(right, len(truth))
    return CrossValidation(
        rows=len(truth),
        accuracy=right / len(truth),
        interval=(round(interval.low, 4), round(interval.high, 4)),
        withheld=withheld,
        confusions=[Confusion(label=one, answered=other, rows=count) for (one, other), count in ranked],
    )
