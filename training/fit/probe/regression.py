"""Multinomial logistic regression on what an encoder makes of texts: a linear head in a second, without a step."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

STRENGTH: Final = 10.0
"""Inverse of the regularisation (`C`), for features of length 1 in the mean."""
MOST_ITERATIONS: Final = 500
Array = NDArray[Any]
Label = TypeVar("Label", str, int)


def fit_regression(
    features: Array, labels: Sequence[Label], weights: Array | None = None
) -> tuple[Array, Array, list[Label]]:
    """Return weights [C, H] and biases [C] for features as they are, and the labels that they belong to.

    `weights` [N] say how much each row counts; without them all count 1.

    Features are divided by their root mean square length, so that the regularisation means the same for each encoder.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (takes seconds)

    length = float(np.sqrt((features.astype(np.float64) ** 2).sum(1).mean())) or 1.0
    fitted = LogisticRegression(C=STRENGTH, max_iter=MOST_ITERATIONS).fit(features / length, labels, weights)
    weight, bias = fitted.coef_ / length, fitted.intercept_
    if len(weight) == 1:  # of two labels scikit-learn keeps the second's weights against none
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return weight.astype(np.float32), bias.astype(np.float32), fitted.classes_.tolist()
