"""One label for a text, or an abstention."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ....schemas.manifest import TaskSpec, Thresholds
from ..decoding import ALTERNATIVES, PLACES, Decoder, Floats, Output, Rows, merge_scores, softmax
from ..texts.long_texts import Merge
from ..texts.windows import merge_labels
from .forms import AnswerForm
from .kind import WITHHELD, Answer, Kind, read_label


class Classification(Kind):
    name = "classification"
    training = "murmura.training.kinds.classification:Classification"
    form = AnswerForm.LABEL
    out_of_scope = True
    correction = "a label"

    @property
    def recipe_keys(self) -> frozenset[str]:
        thresholds = {"thresholds.accept", "thresholds.out_of_scope", "thresholds.max_flagged", "thresholds.data"}
        words = {"verbaliser"} if self.has_standard_head else set()
        return super().recipe_keys | thresholds | words | {"class_weights", "focal"}

    def make_decoder(self, task: TaskSpec) -> Decoder:
        return ClassificationDecoder(task)

    def format_line(self, output: Answer) -> str:
        return f"{'? ' + output['reason'] if output['abstained'] else output['label']} {output['score']:.2f}"

    def list_answers(self, output: Answer) -> Iterator[tuple[str | None, float]]:
        yield output["label"], output["score"]

    def name_answer(self, output: Answer) -> str:
        return WITHHELD if output["abstained"] else str(output["label"])

    def accepts_correction(self, value: Any) -> bool:
        return isinstance(value, str)

    def target_of_correction(self, value: Any) -> Any:
        return read_label(value)

    def target_of_answer(self, output: Answer) -> Any | None:
        """That a text is out of scope is an answer too; that the model was unsure is none."""
        if not output["abstained"]:
            return read_label(output["label"])
        return read_label(output["alternatives"][0]["label"]) if output["reason"] == "out_of_scope" else None

    def labels_of_target(self, target: Any) -> set[str]:
        return {target}

    def fake_output(self, task: TaskSpec) -> Output:
        first = {"label": task.labels[0], "score": 1.0}
        return {"kind": task.kind, **first, "alternatives": [first], "abstained": False, "reason": None}


class ClassificationDecoder:
    """The most likely label, or an abstention.

    An out-of-scope label wins if its score reaches `thresholds.out_of_scope` (if unset: if it is the most likely one).
    Otherwise the best other label wins, and abstains if its score is below `thresholds.accept`.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._kind, self._labels = spec.kind, spec.labels
        self._out_of_scope = None if spec.out_of_scope is None else spec.labels.index(spec.out_of_scope)
        self._temperature = spec.calibration.temperature
        self._top = min(ALTERNATIVES, len(spec.labels))

    def __call__(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        return self.decide(self.scores(rows.values), thresholds)

    def decode_windows(self, rows: Rows, thresholds: Thresholds) -> list[Output]:
        def merge(scores: Floats, how: Merge) -> Floats:
            return merge_labels(scores, how, self._out_of_scope)

        return self.decide(merge_scores(rows, self.scores(rows.values), merge), thresholds)

    def scores(self, logits: Floats) -> Floats:
        """Return the probabilities of the labels [B, C] for logits."""
        return softmax(logits.astype(np.float64) / self._temperature)

    def decide(self, scores: Floats, thresholds: Thresholds) -> list[Output]:
        """Return one output per row of probabilities [B, C]."""
        scores = scores.round(PLACES)
        every_row = np.arange(len(scores))
        winner, refused = self._winners(scores, thresholds.out_of_scope)
        order = self._order(scores, winner, every_row)
        best = scores[every_row[:, None], order].tolist()
        labels, accept = self._labels, thresholds.accept
        outputs: list[Output] = []
        for ids, values, out in zip(order.tolist(), best, refused, strict=True):
            reason = "out_of_scope" if out else None
            if accept is not None and not out and values[0] < accept:
                reason = "below_threshold"
            outputs.append(
                {
                    "kind": self._kind,
                    "label": labels[ids[0]] if reason is None else None,
                    "score": values[0],
                    "alternatives": [{"label": labels[i], "score": v} for i, v in zip(ids, values, strict=True)],
                    "abstained": reason is not None,
                    "reason": reason,
                }
            )
        return outputs

    def _winners(self, scores: Floats, threshold: float | None) -> tuple[npt.NDArray[Any], list[bool]]:
        """Return the winning label of each row, and whether it is the out-of-scope one."""
        first = scores.argmax(axis=1)
        oos = self._out_of_scope
        if oos is None:
            return first, [False] * len(scores)
        refused = first == oos if threshold is None else scores[:, oos] >= threshold
        in_scope = scores.copy()
        in_scope[:, oos] = -1.0
        return np.where(refused, oos, in_scope.argmax(axis=1)), refused.tolist()

    def _order(self, scores: Floats, winner: npt.NDArray[Any], every_row: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the top labels of each row, the winner first. Three passes of argmax are faster than sorting 150 labels."""
        order = np.empty((len(scores), self._top), np.int64)
        left = scores.copy()
        order[:, 0] = winner
        for place in range(1, self._top):
            left[every_row, order[:, place - 1]] = -1.0
            order[:, place] = left.argmax(axis=1)
        return order
