"""What the wordings of one question differ in says nothing about which question it is: it is weighed less. Pure."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

SHRINKAGE: Final = 0.5
"""Share of the identity in the spread of wordings; of 0.2 to 0.7 that with the most right answers in the demo."""
FEWEST: Final = 32
"""With fewer wordings beside the first ones the spread is not known."""

Vectors = npt.NDArray[np.float32]


def fit_whitening(vectors: Vectors, owners: npt.NDArray[np.int64]) -> Vectors:
    """Return the matrix [H, H] that gives wordings of one question the same spread in all directions.

    `vectors` are [rows, H], `owners` the question of each. Relevant component analysis (Bar-Hillel et al. 2005), the covariance
    within questions shrunk towards a multiple of the identity. Of few wordings, or equal ones: the identity.
    """
    rows, width = vectors.astype(np.float64), vectors.shape[1]
    questions, places = np.unique(owners, return_inverse=True)
    means = np.zeros((len(questions), width))
    np.add.at(means, places, rows)
    means /= np.bincount(places, minlength=len(questions))[:, None]
    spread = rows - means[places]
    free = len(rows) - len(questions)
    within = spread.T @ spread / max(free, 1)
    level = np.trace(within) / width
    if free < FEWEST or level <= 0:
        return np.eye(width, dtype=np.float32)
    values, directions = np.linalg.eigh((1 - SHRINKAGE) * within / level + SHRINKAGE * np.eye(width))
    found: Vectors = ((directions / np.sqrt(values)) @ directions.T).astype(np.float32)
    return found


def whiten(vectors: npt.NDArray[Any], matrix: Vectors) -> Vectors:
    """Return vectors [..., H] times the matrix, of length 1; those of zeros stay so."""
    changed = vectors.astype(np.float32) @ matrix
    lengths = np.linalg.norm(changed, axis=-1, keepdims=True)
    found: Vectors = (changed / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return found
