"""Any number of labels for a text."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ....schemas.manifest import TaskSpec, Thresholds
from ..decoding import PLACES, Decoder, Floats, Output, Rows, merge_scores, score_labels, sigmoid
from ..texts.long_texts import Merge
from .forms import AnswerForm
from .kind import NONE, Answer, Array, Kind, read_label


class MultiLabel(Kind):
    name = "multi_label"
    training = "murmura.training.kinds.multi_label:MultiLabel"
    form = AnswerForm.LABELS
    correction = "a list of labels"

    @property
    def recipe_keys(self) -> frozenset[str]:
        return super().recipe_keys | {"thresholds.label", "thresholds.max_flagged"}

    def make_decoder(self, task: TaskSpec) -> Decoder:
        return MultiLabelDecoder(task)

    def to_scores(self, logits: Floats) -> Floats:
        return sigmoid(logits)

    def to_decisions(self, logits: Floats) -> Array:
        return np.asarray(logits > 0)

    def format_line(self, output: Answer) -> str:
        return ", ".join(f"{item['label']} {item['score']:.2f}" for item in output["labels"]) or "-"

    def list_answers(self, output: Answer) -> Iterator[tuple[str | None, float]]:
        return ((item["label"], item["score"]) for item in output["labels"])

    def name_answer(self, output: Answer) -> str:
        return ", ".join(sorted(str(item["label"]) for item in output["labels"])) or NONE

    def accepts_correction(self, value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(label, str) for label in value)

    def target_of_correction(self, value: Any) -> Any:
        """Return the labels sorted, each once: labels that differ in the white space around them are one."""
        if not isinstance(value, list):
            raise ValueError(f"{type(value).__name__} is no list of labels")
        return sorted({read_label(each) for each in value})

    def target_of_answer(self, output: Answer) -> Any | None:
        return self.target_of_correction([each["label"] for each in output["labels"]])

    def labels_of_target(self, target: Any) -> set[str]:
        return set(target)

    def fake_output(self, task: TaskSpec) -> Output:
        return {"kind": task.kind, "labels": []}


class MultiLabelDecoder:
    """The labels with a score of at least their threshold, highest first."""

    def __init__(self, spec: TaskSpec) -> None:
        self._kind, self._labels = spec.kind, spec.labels
        self._calibration = spec.calibration

    def __call__(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        return self.decide(self.scores(rows.values), thresholds)

    def decode_windows(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        return self.decide(merge_scores(rows, self.scores(rows.values), _merge), thresholds)

    def scores(self, logits: Floats) -> Floats:
        """Return the probabilities of the labels [B, C] for logits."""
        return score_labels(logits, self._calibration)

    def decide(self, scores: Floats, thresholds: Thresholds) -> list[Output]:
        """Return one output per row of probabilities [B, C]."""
        scores = scores.round(PLACES)
        least = np.array([thresholds.labels.get(label, thresholds.label) for label in self._labels])
        found: list[list[dict[str, Any]]] = [[] for _ in range(len(scores))]
        row, column = np.nonzero(scores >= least)
        value = scores[row, column]
        order = np.argsort(-value, kind="stable")
        for r, c, v in zip(row[order].tolist(), column[order].tolist(), value[order].tolist(), strict=True):
            found[r].append({"label": self._labels[c], "score": v})
        return [{"kind": self._kind, "labels": labels} for labels in found]


def _merge(scores: Floats, how: Merge) -> Floats:
    return np.asarray(scores.mean(axis=0) if how == "mean" else scores.max(axis=0))
