"""Likely label errors by confident learning (Northcutt, Jiang, Chuang 2021), as `cleanlab` has it; pure but for its import."""

import importlib.util
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .out_of_fold import draw_folds, find_alone, flag_probabilities, label_probabilities

Array = NDArray[Any]
MISSING: Final = "label errors are not looked for: pip install 'murmura[labels]'"


class Found(NamedTuple):
    """A doubted label: its row, its token (0 where a text has one label), and the scores [C] of labels."""

    row: int
    token: int
    scores: Array


class Doubts(NamedTuple):
    """What was found in the `rows` that were judged, the likeliest error first.

    `unjudged` are labels that stand in one fold only: where they are asked for, no other row teaches them, and every row that has
    one would be doubted.
    """

    found: list[Found]
    rows: int
    unjudged: list[int]


def is_installed() -> bool:
    """Return whether the extra `labels` is installed."""
    return importlib.util.find_spec("cleanlab") is not None


def find_in_labels(features: Array, labels: Sequence[int], groups: Sequence[object], seed: int) -> Doubts:
    """Return the doubted labels, for features [N, H] of texts with one label each."""
    from cleanlab.filter import find_label_issues  # noqa: PLC0415  (takes seconds)

    given, folds = np.asarray(labels), draw_folds(groups, seed)
    unjudged = find_alone(given, folds)
    kept = np.flatnonzero(~np.isin(given, unjudged))
    names, numbers = np.unique(given[kept], return_inverse=True)
    if len(names) < 2:
        return Doubts([], len(kept), unjudged)
    probabilities = label_probabilities(features[kept], numbers, folds[kept])
    rows = find_label_issues(numbers, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    found = [Found(int(kept[row]), 0, _spread(probabilities[row], names)) for row in rows]
    return Doubts(found, len(kept), unjudged)


def find_in_flags(features: Array, flags: Array, groups: Sequence[object], seed: int) -> Doubts:
    """Return the rows whose set of labels is doubted, for flags [N, C] of labels that do not exclude each other."""
    from cleanlab.multilabel_classification.filter import find_label_issues  # noqa: PLC0415

    given, folds = flags > 0.5, draw_folds(groups, seed)
    # A label that all rows have, or none, cannot be doubted, and cleanlab has no threshold for it.
    varied = np.flatnonzero(given.any(0) & ~given.all(0))
    unjudged = [int(label) for label in varied if find_alone(given[:, label], folds)]
    used = np.setdiff1d(varied, unjudged)
    if not len(used):
        return Doubts([], len(flags), unjudged)
    probabilities = flag_probabilities(features, flags[:, used], folds)
    numbers = [np.flatnonzero(row).tolist() for row in given[:, used]]
    rows = find_label_issues(numbers, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    found = []
    for row in rows:
        scores = given[row].astype(float)
        scores[used] = probabilities[row]
        found.append(Found(int(row), 0, scores))
    return Doubts(found, len(flags), unjudged)


def find_in_tags(features: Sequence[Array], tags: Sequence[Array], groups: Sequence[object], seed: int) -> Doubts:
    """Return the doubted tags, for features [S, H] and tags [S] of the words of each text; equal texts are one group."""
    from cleanlab.token_classification.filter import find_label_issues  # noqa: PLC0415

    every = np.concatenate(list(tags))
    folds = np.repeat(draw_folds(groups, seed), [len(each) for each in tags])
    unjudged = find_alone(every, folds)
    kept = [np.flatnonzero(~np.isin(each, unjudged)) for each in tags]
    names, numbers = np.unique(every[~np.isin(every, unjudged)], return_inverse=True)
    judged = [row for row, words in enumerate(kept) if len(words)]
    if len(names) < 2:
        return Doubts([], len(judged), unjudged)
    ends = np.cumsum([len(kept[row]) for row in judged])[:-1]
    states = np.concatenate([features[row][kept[row]] for row in judged])
    probabilities = np.split(label_probabilities(states, numbers, folds[~np.isin(every, unjudged)]), ends)
    given = [each.tolist() for each in np.split(numbers, ends)]
    issues = find_label_issues(given, probabilities, n_jobs=1)
    found = [
        Found(judged[row], int(kept[judged[row]][at]), _spread(probabilities[row][at], names)) for row, at in issues
    ]
    return Doubts(found, len(judged), unjudged)


def _spread(scores: Array, names: Array) -> Array:
    """Return scores of the labels that rows have as scores of all labels up to the last of these."""
    found = np.zeros(int(names.max()) + 1)
    found[names] = scores
    return found
