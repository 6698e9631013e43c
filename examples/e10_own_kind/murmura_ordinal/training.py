"""Grades, as they are learned: a mistake counts by its distance.

The order of the labels is the sorted one, or that of `labels` in the recipe.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from murmura.schemas.manifest import TaskSpec
from murmura.training.kinds.answers import Answer, Score
from murmura.training.kinds.classification import Classification
from murmura.training.kinds.figures.outcome import Outcome, of_ratio
from murmura.training.kinds.kind import EncodedTexts


class Ordinal(Classification):
    name = "ordinal"
    meanings: ClassVar = {"mae": "mean distance of the answer from the right grade, in grades"}

    def loss(self, logits: Tensor, target: Tensor, smoothing: float, texts: EncodedTexts | None = None) -> Tensor:
        """Cross-entropy, plus the squared distance of the cumulative distributions (Hou et al. 2016)."""
        reached = torch.arange(logits.shape[1], device=logits.device) >= target[:, None]
        distance = (logits.softmax(-1).cumsum(-1) - reached.to(logits.dtype)).square().sum(-1).mean()
        return F.cross_entropy(logits, target, label_smoothing=smoothing) + distance

    def metrics(self, logits: Sequence[Any], targets: Sequence[Any], task: TaskSpec) -> dict[str, float]:
        mistakes = np.abs(np.stack(list(logits)).argmax(-1) - np.stack(list(targets)))
        error = float(mistakes.mean())
        return {"main": 1 - error / max(len(task.labels) - 1, 1), "mae": error}

    def score(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Score:
        score = super().score(answers, task, scope)
        return Score({**score.figures, "mae": float(_mistakes(answers, task).mean())}, score.table)

    def outcome(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Outcome:
        """The gate's numbers: 1 for the right grade, less for a near one, 0 for the farthest."""
        right = 1 - _mistakes(answers, task) / max(len(task.labels) - 1, 1)
        return of_ratio(right, np.ones_like(right))


def _mistakes(answers: Sequence[Answer], task: TaskSpec) -> Any:
    """Return the distance of each answer from the right grade; a grade that the model lacks is as far as can be."""
    grades = {label: number for number, label in enumerate(task.labels)}
    most = len(task.labels) - 1
    given = [grades[answer.output["alternatives"][0]["label"]] for answer in answers]
    right = [grades.get(answer.example.labels[0]) for answer in answers]
    return np.array([most if b is None else abs(a - b) for a, b in zip(given, right, strict=True)], np.float64)
