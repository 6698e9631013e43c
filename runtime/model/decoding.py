"""What all decoders share: the rows of a batch, scores, and merging of windows.

Outputs are plain dicts in the form of `schemas.result` (a test checks that). Scores are rounded to seven places, and
thresholds apply to the rounded score, so that the published score explains the decision.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from ...schemas.manifest import Calibration, Thresholds
from .texts.long_texts import Merge

Floats = npt.NDArray[np.floating[Any]]
Output = dict[str, Any]

PLACES: Final = 7
ALTERNATIVES: Final = 3


@dataclass(frozen=True, slots=True)
class MergedRows:
    """The windows of each text: text b has the rows `[bounds[b] : bounds[b + 1]]`."""

    bounds: npt.NDArray[np.int64]
    merges: Sequence[Merge]
    """One per text."""

    def __iter__(self) -> Iterator[tuple[int, int, Merge]]:
        return zip(self.bounds[:-1].tolist(), self.bounds[1:].tolist(), self.merges, strict=True)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a batch to decode for a task. `values` are logits: [B, C], or for tagging [T, C] with row b in
    `values[bounds[b] : bounds[b + 1]]`.
    """

    values: Floats
    bounds: npt.NDArray[np.int64]
    encodings: Sequence[Encoding]
    texts: Sequence[str]
    merged: MergedRows | None = None
    """Set if some rows are windows; used by `decode_windows`."""


class Decoder(Protocol):
    """Created once per task, called once per batch. Returns one output per row."""

    def __call__(self, rows: Rows, thresholds: Thresholds) -> list[Output]: ...

    def decode_windows(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        """Return one output per text of `rows.merged`; for a text with one row the same as without windows."""


def softmax(logits: Floats) -> Floats:
    """Return the softmax over the last axis."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True))


def sigmoid(logits: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)), computed by tanh, which does not overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))


def score_labels(logits: Floats, calibration: Calibration) -> Floats:
    """Return the probabilities [..., C] of labels that do not exclude each other."""
    beta, scaled = calibration.beta, logits.astype(np.float64)
    if beta is None:
        return sigmoid(scaled / calibration.temperature)
    return sigmoid(beta.high * np.logaddexp(0, scaled) - beta.low * np.logaddexp(0, -scaled) + beta.shift)


def merge_scores(rows: Rows, scores: Floats, merge: Callable[[Floats, Merge], Floats]) -> Floats:
    """Return one row of scores [C] per text; `merge` makes it of the rows [W, C] of a text's windows."""
    assert rows.merged is not None
    parts = [(scores[begin:end], how) for begin, end, how in rows.merged]
    return np.array([part[0] if len(part) == 1 else merge(part, how) for part, how in parts])
