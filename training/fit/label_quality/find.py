"""Likely label errors by confident learning (Northcutt, Jiang, Chuang 2021), as `cleanlab` has it; pure but for its import."""

import importlib.util
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .out_of_fold import draw_folds, flag_probabilities, label_probabilities

Array = NDArray[Any]
MISSING: Final = "label errors are not looked for: pip install 'murmura[labels]'"


class Found(NamedTuple):
    """A doubted label: its row, its token (0 where a text has one label), and the scores [C] of labels."""

    row: int
    token: int
    scores: Array


def is_installed() -> bool:
    """Return whether the extra `labels` is installed."""
    return importlib.util.find_spec("cleanlab") is not None


def find_in_labels(features: Array, labels: Sequence[int], groups: Sequence[object], seed: int) -> list[Found]:
    """Return the doubted labels, the likeliest error first, for features [N, H] of texts with one label each."""
    from cleanlab.filter import find_label_issues  # noqa: PLC0415  (takes seconds)

    names, numbers = np.unique(np.asarray(labels), return_inverse=True)
    if len(names) < 2:
        return []
    probabilities = label_probabilities(features, numbers, draw_folds(groups, seed))
    rows = find_label_issues(numbers, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [Found(int(row), 0, _spread(probabilities[row], names)) for row in rows]


def find_in_flags(features: Array, flags: Array, groups: Sequence[object], seed: int) -> list[Found]:
    """Return the rows whose set of labels is doubted, for flags [N, C] of labels that do not exclude each other."""
    from cleanlab.multilabel_classification.filter import find_label_issues  # noqa: PLC0415

    # A label that all rows have, or none, cannot be doubted, and cleanlab has no threshold for it.
    used = np.flatnonzero((flags > 0.5).any(0) & ~(flags > 0.5).all(0))
    if not len(used):
        return []
    probabilities = flag_probabilities(features, flags[:, used], draw_folds(groups, seed))
    given = [np.flatnonzero(row > 0.5).tolist() for row in flags[:, used]]
    rows = find_label_issues(given, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    found = []
    for row in rows:
        scores = (flags[row] > 0.5).astype(float)
        scores[used] = probabilities[row]
        found.append(Found(int(row), 0, scores))
    return found


def find_in_tags(features: Sequence[Array], tags: Sequence[Array], groups: Sequence[object], seed: int) -> list[Found]:
    """Return the doubted tags, for features [S, H] and tags [S] of the words of each text; equal texts are one group."""
    from cleanlab.token_classification.filter import find_label_issues  # noqa: PLC0415

    lengths = [len(each) for each in tags]
    names, numbers = np.unique(np.concatenate(list(tags)), return_inverse=True)
    if len(names) < 2:
        return []
    folds = np.repeat(draw_folds(groups, seed), lengths)
    ends = np.cumsum(lengths)[:-1]
    probabilities = np.split(label_probabilities(np.concatenate(list(features)), numbers, folds), ends)
    given = [each.tolist() for each in np.split(numbers, ends)]
    issues = find_label_issues(given, probabilities, n_jobs=1)
    return [Found(int(row), int(at), _spread(probabilities[row][at], names)) for row, at in issues]


def _spread(scores: Array, names: Array) -> Array:
    """Return scores of the labels that rows have as scores of all labels up to the last of these."""
    found = np.zeros(int(names.max()) + 1)
    found[names] = scores
    return found
