"""Sequences of BIO tags: which are legal, the most likely one, and their spans. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
OUTSIDE: Final = "O"


def legal_transitions(tags: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return [C, C]: whether the second tag may follow the first under BIO."""
    return np.array([[not b.startswith("I-") or (a != "O" and a[2:] == b[2:]) for b in tags] for a in tags])


def viterbi(emissions: Floats, start: npt.NDArray[np.bool_], legal: npt.NDArray[np.bool_]) -> list[int]:
    """Return the path with the highest sum of `emissions` [W, C] among those with a legal start and legal transitions."""
    total = np.where(start, emissions[0], -np.inf)
    penalty = np.where(legal, 0.0, -np.inf)
    back: list[npt.NDArray[Any]] = []
    for emission in emissions[1:]:
        through = total[:, None] + penalty
        back.append(through.argmax(axis=0))
        total = through.max(axis=0) + emission
    path = [int(total.argmax())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return path[::-1]


def tag_runs(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (label, first, last) of each run of a legal BIO sequence; `last` is inclusive."""
    begin: int | None = None
    for i, tag in enumerate(tags):
        if begin is not None and not tag.startswith("I-"):
            yield tags[begin][2:], begin, i - 1
            begin = None
        if tag.startswith("B-"):
            begin = i
    if begin is not None:
        yield tags[begin][2:], begin, len(tags) - 1
