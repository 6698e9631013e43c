"""Any number of labels for a text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import classification_report, f1_score
from tokenizers import Encoding
from torch import Tensor, nn
from torch.nn import functional as F

from ...schemas.manifest import TaskSpec
from ..data.example import Example
from .answers import Answer, Score
from .calibration_error import calibration_error
from .heads import linear_head

Array = NDArray[Any]


class MultiLabel:
    per_token = False
    several = True

    def labels(self, examples: Sequence[Example]) -> list[str]:
        return sorted({label for example in examples for label in example.labels})

    def unknown(self, example: Example, labels: frozenset[str]) -> str | None:
        return next((label for label in example.labels if label not in labels), None)

    def head(self, width: int, labels: int) -> nn.Linear:
        return linear_head(width, labels)

    def target(self, example: Example, encoding: Encoding, index: dict[str, int]) -> Array:
        hot = np.zeros(len(index), np.float32)
        hot[[index[label] for label in example.labels]] = 1
        return hot

    def collate(self, targets: Sequence[Array], width: int) -> Tensor:
        return torch.from_numpy(np.stack(list(targets)))

    def asked(self, target: Tensor) -> Tensor:
        return torch.ones(len(target), dtype=torch.bool)

    def loss(self, logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
        """Binary cross-entropy, summed over the labels of a text: a mean would fade with their number."""
        soft = target * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, soft, reduction="sum") / len(logits)

    def metrics(self, logits: Sequence[Array], targets: Sequence[Array], spec: TaskSpec) -> dict[str, float]:
        """Micro-F1 is the main one, at a score of one half. None where no text has a label: then F1 says nothing."""
        guess, truth = np.stack(list(logits)) > 0, np.stack(list(targets)) > 0.5
        if not truth.any():
            return {}
        micro = float(f1_score(truth, guess, average="micro", zero_division=0))
        macro = float(f1_score(truth, guess, average="macro", zero_division=0))
        return {"main": micro, "micro_f1": micro, "macro_f1": macro}

    def score(self, answers: Sequence[Answer], spec: TaskSpec, scope: str | None) -> Score:
        """At the thresholds of the manifest; `exact` is the share of texts with all labels right.

        The F1 are None where no text has a label and none is named. `ece` holds the scores of the labels named against whether
        the text has them.
        """
        named = [{item["label"] for item in answer.output["labels"]} for answer in answers]
        truth = np.array([[label in answer.example.labels for label in spec.labels] for answer in answers])
        guess = np.array([[label in labels for label in spec.labels] for labels in named])
        any_label = bool(truth.any() or guess.any())
        figures = {
            "rows": float(len(answers)),
            "micro_f1": float(f1_score(truth, guess, average="micro", zero_division=0)) if any_label else None,
            "macro_f1": float(f1_score(truth, guess, average="macro", zero_division=0)) if any_label else None,
            "exact": float((truth == guess).all(-1).mean()),
            "false_labels_per_100_texts": float(100 * (guess & ~truth).sum() / len(answers)),
            "ece": _calibration_error(answers),
        }
        table = str(classification_report(truth, guess, target_names=spec.labels, zero_division=0, digits=3))
        return Score(figures, table)


def _calibration_error(answers: Sequence[Answer]) -> float | None:
    """Hold the score of each named label against whether the text has it; None where none is named."""
    pairs = [
        (item["score"], item["label"] in answer.example.labels)
        for answer in answers
        for item in answer.output["labels"]
    ]
    scores, right = np.array(pairs, float).reshape(-1, 2).T
    return calibration_error(scores, right) if pairs else None
