"""Probabilities of labels by a regression that has not seen the row: five folds, equal texts in one of them.

A model that was trained on a row repeats its label, right or wrong. So a label is doubted by what others say of it only.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ....runtime.model.decoding import sigmoid, softmax
from ..probe.regression import fit_regression

Array = NDArray[Any]
FOLDS: Final = 5


def draw_folds(groups: Sequence[object], seed: int) -> Array:
    """Return the fold [N] of each row; rows of one group share theirs, and folds are of about the same size."""
    numbers: dict[object, int] = {}
    of_rows = np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)
    order = np.random.default_rng(seed).permutation(len(numbers))
    return np.asarray((order % FOLDS)[of_rows])


def find_alone(labels: Array, folds: Array) -> list[int]:
    """Return the labels [N] whose rows all lie in one fold [N]: cross-validation says nothing of them."""
    return [int(label) for label in np.unique(labels) if len(np.unique(folds[labels == label])) < 2]


def label_probabilities(features: Array, labels: Array, folds: Array) -> Array:
    """Return probabilities [N, C] of labels 0 to C-1 that exclude each other, for features [N, H]; each row's are out of fold."""
    found = np.zeros((len(labels), int(labels.max()) + 1))
    for fold in np.unique(folds):
        inside, outside = folds == fold, folds != fold
        if len(np.unique(labels[outside])) < 2:
            found[inside, labels[outside][0]] = 1.0
            continue
        weight, bias, names = fit_regression(features[outside], labels[outside].tolist())
        found[np.ix_(inside, names)] = softmax((features[inside] @ weight.T + bias).astype(np.float64))
    return found


def flag_probabilities(features: Array, flags: Array, folds: Array) -> Array:
    """Return probabilities [N, C] of labels that do not exclude each other, for flags [N, C]: a regression for each label."""
    found = np.zeros(flags.shape)
    for label in range(flags.shape[1]):
        for fold in np.unique(folds):
            inside, outside = folds == fold, folds != fold
            given = flags[outside, label] > 0.5
            if given.all() or not given.any():
                found[inside, label] = float(given.all())
                continue
            weight, bias, _ = fit_regression(features[outside], given.astype(int).tolist())
            logits = features[inside] @ (weight[1] - weight[0]) + bias[1] - bias[0]
            found[inside, label] = sigmoid(logits.astype(np.float64))
    return found
