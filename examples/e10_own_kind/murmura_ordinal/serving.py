"""Grades, as they are served: a classification whose answers also tell the mean of the grades."""

from typing import Any

import numpy as np

from murmura.runtime.model.kinds.classification import Classification, ClassificationDecoder
from murmura.schemas.manifest import TaskSpec, Thresholds


class OrdinalDecoder(ClassificationDecoder):
    def decide(self, scores: Any, thresholds: Thresholds) -> list[dict[str, Any]]:
        """Return one output per row of probabilities [B, C]; `mean` counts the labels from 1."""
        means = scores @ np.arange(1, scores.shape[1] + 1)
        outputs = super().decide(scores, thresholds)
        return [{**output, "mean": mean} for output, mean in zip(outputs, means.round(3).tolist(), strict=True)]


class Ordinal(Classification):
    name = "ordinal"
    training = "murmura_ordinal.training:Ordinal"
    out_of_scope = False

    def make_decoder(self, task: TaskSpec) -> OrdinalDecoder:
        return OrdinalDecoder(task)

    def format_line(self, output: Any) -> str:
        return f"{super().format_line(output)} (mean {output['mean']:.1f})"

    def fake_output(self, task: TaskSpec) -> dict[str, Any]:
        return {**super().fake_output(task), "mean": 1.0}
