"""One label for a text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from tokenizers import Encoding
from torch import Tensor, nn
from torch.nn import functional as F

from ..schemas.manifest import TaskSpec
from .data import Example
from .heads import linear_head

Array = NDArray[Any]


class Classification:
    per_token = False

    def labels(self, examples: Sequence[Example]) -> list[str]:
        return sorted({example.labels[0] for example in examples})

    def unknown(self, example: Example, labels: frozenset[str]) -> str | None:
        return None if example.labels[0] in labels else example.labels[0]

    def head(self, width: int, labels: int) -> nn.Linear:
        return linear_head(width, labels)

    def target(self, example: Example, encoding: Encoding, index: dict[str, int]) -> Array:
        return np.array(index[example.labels[0]])

    def collate(self, targets: Sequence[Array], width: int) -> Tensor:
        return torch.from_numpy(np.stack(list(targets)))

    def loss(self, logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
        return F.cross_entropy(logits, target, label_smoothing=smoothing)

    def metrics(self, logits: Sequence[Array], targets: Sequence[Array], spec: TaskSpec) -> dict[str, float]:
        """Accuracy is the main one; with an out-of-scope label that of the argmax over all classes."""
        guess, truth = np.stack(list(logits)).argmax(-1), np.stack(list(targets))
        accuracy = float((guess == truth).mean())
        return {"main": accuracy, "accuracy": accuracy, "macro_f1": float(f1_score(truth, guess, average="macro"))}
