"""Counts by label: what was right, wrongly named and missed. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intervals import Sampled
from .span_scores import Matches

Array = NDArray[np.float64]


def count_labels(pairs: Iterable[tuple[str, str]]) -> dict[str, Matches]:
    """Return the counts of each label of rows and answers, one label each."""
    return count_label_sets(((Counter([truth]), Counter([guess])) for truth, guess in pairs))


def count_label_sets(
    pairs: Iterable[tuple[Counter[Any], Counter[Any]]], *, label_of: Callable[[Any], str] = str
) -> dict[str, Matches]:
    """Return the counts of each label of what there is and what was named, row by row; labels in their order."""
    right, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    for truth, guess in pairs:
        for counts, found in ((right, truth & guess), (wrong, guess - truth), (missed, truth - guess)):
            counts.update(label_of(each) for each in found.elements())
    return {label: Matches(right[label], wrong[label], missed[label]) for label in sorted(right | wrong | missed)}


def sample_macro_f1(pairs: Mapping[tuple[str, str], int]) -> Sampled:
    """Return the mean F1 of the labels of rows and answers as what can be drawn again; `pairs` counts both."""
    names = {label: at for at, label in enumerate(sorted({label for pair in pairs for label in pair}))}
    columns = np.zeros((len(pairs), 3, len(names)))
    for row, (truth, guess) in zip(columns, pairs, strict=True):
        row[0, names[truth]] += truth == guess
        row[1, names[truth]] += 1
        row[2, names[guess]] += 1
    return Sampled(columns.reshape(len(pairs), -1), np.array([*pairs.values()]), compute_macro_f1)


def compute_macro_f1(sums: Array) -> Array:
    """Return the mean F1 [...] over labels that occur, of sums [..., 3 C]: right, of the rows, named, each by label."""
    right, there, named = np.split(sums, 3, axis=-1)
    both = there + named
    f1 = np.where(both > 0, 2 * right / np.maximum(both, 1), 0.0)
    return np.asarray(f1.sum(-1) / np.maximum((both > 0).sum(-1), 1))
