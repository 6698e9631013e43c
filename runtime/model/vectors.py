"""Vectors of texts: the mean of a text's states, of length 1, so that the product of two is the cosine between them."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...schemas.manifest import POOLED
from .batch_rows import Logits

Vectors = npt.NDArray[np.float32]
_SHORTEST: Final = 1e-12


class Embedded(NamedTuple):
    """The vector of a text, and the model that gave it: vectors of two models do not compare."""

    vector: Vectors
    """[H], of length 1."""
    model: tuple[str, int]
    """Name and version."""


def unit_vectors(means: npt.NDArray[Any]) -> Vectors:
    """Divide each row [B, H] by its length; a row of zeros stays one. Row by row, so that no batch changes the bits."""
    rows = means.astype(np.float64)
    lengths = np.array([np.sqrt(np.square(row).sum()) for row in rows]).reshape(-1, 1)
    divided: Vectors = (rows / np.maximum(lengths, _SHORTEST)).astype(np.float32)
    return divided


def first_vectors(logits: Logits, texts: Sequence[int]) -> Vectors:
    """Return the vectors of some texts of a batch; of one in windows, or beside a pair, that of its first row."""
    if logits.vectors is None:
        raise ValueError(f"the model has no output `{POOLED}`; expected `pooled: true` in its manifest")
    rows = list(texts) if logits.bounds is None else [int(logits.bounds[text]) for text in texts]
    found: Vectors = logits.vectors[rows]
    return found
