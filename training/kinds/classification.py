"""One label for a text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import classification_report, f1_score, roc_auc_score
from tokenizers import Encoding
from torch import Tensor, nn
from torch.nn import functional as F

from ...runtime.model.decoding import softmax
from ...schemas.manifest import TaskSpec
from ..data.example import Example
from .answers import Answer, Score
from .calibration_error import calibration_error
from .heads import linear_head

Array = NDArray[Any]


class Classification:
    per_token = False
    several = False

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

    def asked(self, target: Tensor) -> Tensor:
        return torch.ones(len(target), dtype=torch.bool)

    def loss(self, logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
        return F.cross_entropy(logits, target, label_smoothing=smoothing)

    def metrics(self, logits: Sequence[Array], targets: Sequence[Array], spec: TaskSpec) -> dict[str, float]:
        """Accuracy is the main one; with an out-of-scope label that of the argmax over all classes."""
        guess, truth = np.stack(list(logits)).argmax(-1), np.stack(list(targets))
        accuracy = float((guess == truth).mean())
        return {"main": accuracy, "accuracy": accuracy, "macro_f1": float(f1_score(truth, guess, average="macro"))}

    def score(self, answers: Sequence[Answer], spec: TaskSpec, scope: str | None) -> Score:
        """Score what a receiver gets, then the forced choice.

        At the thresholds of the manifest, of rows in scope: `served`, given and right; `withheld`. Of rows out of scope:
        `out_of_scope_recall`, withheld. Without thresholds, of rows in scope: `accuracy` and `macro_f1` of the best label in
        scope. `ece` holds the score of each answer against whether its label is right, over all rows whose label the model
        has, the one out of scope too where it is learned.
        """
        inner = [answer for answer in answers if answer.example.labels[0] != scope]
        outer = [answer for answer in answers if answer.example.labels[0] == scope]
        truth, guess = [answer.example.labels[0] for answer in inner], _best_in_scope(inner, spec) if inner else []
        figures: dict[str, float | None] = {"rows": len(inner)}
        if inner:
            figures["served"] = float(
                np.mean([answer.output["label"] == label for answer, label in zip(inner, truth, strict=True)])
            )
            figures["withheld"] = float(np.mean([answer.output["abstained"] for answer in inner]))
        if outer:
            figures["out_of_scope_recall"] = float(np.mean([answer.output["abstained"] for answer in outer]))
        if inner:
            figures["accuracy"] = float(np.mean([a == b for a, b in zip(guess, truth, strict=True)]))
            figures["macro_f1"] = float(f1_score(truth, guess, average="macro", zero_division=0))
        figures["ece"] = _calibration_error(answers, spec)
        if inner and outer:
            marks = [0] * len(inner) + [1] * len(outer)
            figures["out_of_scope_auroc"] = float(roc_auc_score(marks, _doubt([*inner, *outer], spec)))
        if outer:
            figures["out_of_scope_rows"] = len(outer)
        table = str(classification_report(truth, guess, zero_division=0, digits=3)) if inner else ""
        return Score(figures, table)


def _calibration_error(answers: Sequence[Answer], spec: TaskSpec) -> float | None:
    known = [answer for answer in answers if answer.example.labels[0] in spec.labels]
    if not known:
        return None
    best = [answer.output["alternatives"][0] for answer in known]
    right = [item["label"] == answer.example.labels[0] for item, answer in zip(best, known, strict=True)]
    return calibration_error(np.array([item["score"] for item in best]), np.array(right))


def _scores(answers: Sequence[Answer], spec: TaskSpec) -> Array:
    logits = np.stack([answer.logits for answer in answers]).astype(np.float64)
    return softmax(logits / spec.calibration.temperature)


def _best_in_scope(answers: Sequence[Answer], spec: TaskSpec) -> list[str]:
    scores = _scores(answers, spec)
    if spec.out_of_scope is not None:
        scores[:, spec.labels.index(spec.out_of_scope)] = -1
    return [spec.labels[number] for number in scores.argmax(-1)]


def _doubt(answers: Sequence[Answer], spec: TaskSpec) -> Array:
    """How much speaks for withholding: the out-of-scope label's score, or what the winner lacks."""
    scores = _scores(answers, spec)
    doubt: Array = scores[:, spec.labels.index(spec.out_of_scope)] if spec.out_of_scope else 1 - scores.max(-1)
    return doubt
