"""Any number of labels for a text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding
from torch import Tensor
from torch.nn import functional as F

from ...runtime.model.decoding import PLACES, score_labels
from ...schemas.manifest import TaskSpec, Thresholds
from ..data.counts import ReadCounts, RowLeftOut
from ..data.example import Example
from ..data.labelled import read_labelled
from ..data.row import Row
from ..data.rules import Rules
from .answers import Answer, Score
from .calibration import (
    FEW_ROWS,
    beta_of_labels,
    count_rows,
    describe_rows,
    label_threshold,
    withholding_threshold,
)
from .figures.calibration_error import calibration_error, sample_calibration_error
from .figures.findings import Details, Events
from .figures.intervals import Sampled, sample_outcome, sample_shares
from .figures.label_counts import count_label_sets
from .figures.outcome import Outcome, of_counts, of_f1
from .kind import TIE, CalibrationRows, Chosen, EncodedTexts, Kind

Array = NDArray[Any]
NO_LABEL: Final = "no label"


class MultiLabel(Kind):
    name = "multi_label"
    several = True

    @property
    def loss_reads_states(self) -> bool:
        return type(self).loss is not MultiLabel.loss

    def read(self, row: Row, rules: Rules, counts: ReadCounts) -> Example | RowLeftOut:
        found = read_labelled(row, rules)
        return found if isinstance(found, RowLeftOut) else replace(found, labels=tuple(sorted(set(found.labels))))

    def as_row(self, example: Example) -> dict[str, Any]:
        return {"text": example.text, "label": [*example.labels]}

    def as_example(self, text: str, output: Mapping[str, Any]) -> Example:
        return Example(text, tuple(sorted(item["label"] for item in output["labels"])))

    def target(self, example: Example, encoding: Encoding, index: Mapping[str, int]) -> Array:
        hot = np.zeros(len(index), np.float32)
        hot[[index[label] for label in example.labels]] = 1
        return hot

    def loss(self, logits: Tensor, target: Tensor, smoothing: float, texts: EncodedTexts | None = None) -> Tensor:
        """Binary cross-entropy, summed over the labels of a text: a mean would fade with their number."""
        soft = target * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, soft, reduction="sum") / len(logits)

    def chance_loss(self, labels: int) -> float:
        """Return C * log(2): any set of C labels."""
        return labels * log(2)

    def hold_loss(self, now: Tensor, before: Tensor, compared: Tensor, temperature: float) -> Tensor:
        """Return binary cross-entropy with the earlier scores, summed over the labels."""
        each = F.binary_cross_entropy_with_logits(now, torch.sigmoid(before), reduction="none")
        return (each * compared).sum(-1).mean()

    def calibrate(self, rows: CalibrationRows) -> Chosen:
        """Choose how logits become scores, and one threshold for all labels: with `max_flagged` the one that names a label
        for the most texts that have one, of those that name one for at most that share of the others.
        """
        truth = np.array([[label in example.labels for label in rows.labels] for example in rows.validation], float)
        logits = np.stack(rows.score(rows.validation))
        calibration = beta_of_labels(logits, truth)
        if rows.rule.label is not None:
            return Chosen(calibration, Thresholds(label=rows.rule.label))
        without = truth.sum(1) == 0
        if rows.rule.max_flagged is None or without.all() or not without.any():
            least = label_threshold(logits, truth, calibration)
        else:
            highest = score_labels(logits, calibration).round(PLACES).max(1)
            least = withholding_threshold(highest[without].tolist(), highest[~without].tolist(), rows.rule.max_flagged)
        return Chosen(calibration, Thresholds(label=least), count_rows(without))

    def describe_thresholds(self, task: TaskSpec) -> list[str]:
        rows = task.threshold_rows
        # A text without labels says less about a threshold for labels than one that has some.
        few = rows is not None and rows.genuine < FEW_ROWS
        return [f"named from {task.thresholds.label:.9g}{describe_rows(rows, 'with labels', 'without', few=few)}"]

    def decide_alike(self, one: Array, other: Array) -> bool:
        return bool(((one > 0) == (other > 0))[np.abs(one) > TIE].all())

    def metrics(self, logits: Sequence[Array], targets: Sequence[Array], task: TaskSpec) -> dict[str, float]:
        """Micro-F1 is the main one, at a score of one half. None where no text has a label: then F1 says nothing."""
        guess, truth = np.stack(list(logits)) > 0, np.stack(list(targets)) > 0.5
        if not truth.any():
            return {}
        micro, macro = _f1_scores(truth, guess)
        return {"main": micro, "micro_f1": micro, "macro_f1": macro}

    def score(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Score:
        """At the thresholds of the manifest; `exact` is the share of texts with all labels right.

        The F1 are None where no text has a label and none is named. `ece` holds the scores of the labels named against whether
        the text has them.
        """
        named = [{item["label"] for item in answer.output["labels"]} for answer in answers]
        truth = np.array([[label in answer.example.labels for label in task.labels] for answer in answers])
        guess = np.array([[label in labels for label in task.labels] for labels in named])
        any_label, events = bool(truth.any() or guess.any()), _events(answers)
        micro, macro = _f1_scores(truth, guess)
        figures = {
            "rows": float(len(answers)),
            "micro_f1": micro if any_label else None,
            "macro_f1": macro if any_label else None,
            "exact": float((truth == guess).all(-1).mean()),
            "false_labels_per_100_texts": float(100 * (guess & ~truth).sum() / len(answers)),
            "ece": calibration_error(*events) if events is not None else None,
        }
        return Score(figures, _table(truth, guess, task.labels))

    def detail(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Details:
        """Labels that are missed and those that are named instead are confused where a text has one of each."""
        pairs = [_named(answer) for answer in answers]
        differ = [([*(truth - guess)], [*(guess - truth)]) for truth, guess in pairs]
        events, any_label = _events(answers), any(truth or guess for truth, guess in pairs)
        figures = {"exact": sample_shares([truth == guess for truth, guess in pairs])}
        if any_label:
            figures |= {
                "micro_f1": sample_outcome(of_f1(*_count(pairs))),
                "macro_f1": _sample_macro_f1(pairs, task.labels),
            }
        if events is not None:
            figures["ece"] = sample_calibration_error(*events)
        return Details(
            figures=figures,
            labels=count_label_sets(pairs),
            confusions=Counter((missed[0], extra[0]) for missed, extra in differ if len(missed) == len(extra) == 1),
            events=events,
        )

    def describe(self, answer: Answer) -> tuple[str, str]:
        truth, guess = _named(answer)
        return ", ".join(truth) or NO_LABEL, ", ".join(guess) or NO_LABEL

    def outcome(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Outcome:
        """Micro-F1 of the labels named. Where no row has a label, a row is right when none is named."""
        return of_counts([_named(answer) for answer in answers])

    def is_wrong(self, answer: Answer, task: TaskSpec, scope: str | None) -> bool:
        truth, guess = _named(answer)
        return truth != guess

    def least_probability(self, answer: Answer, task: TaskSpec) -> float:
        """Of each label to be named or left out as it was, whatever its threshold is."""
        named = np.isin(task.labels, [item["label"] for item in answer.output["labels"]])
        scores = score_labels(answer.logits, task.calibration)
        return float(np.where(named, scores, 1 - scores).min(initial=1.0))


def _f1_scores(truth: Array, guess: Array) -> tuple[float, float]:
    """Return micro-F1 and macro-F1 of labels [N, C] that there are and that were named; 0 where there is nothing.

    scikit-learn takes one column for a choice between two classes, and gives an accuracy.
    """
    right, all_of_both = 2 * (truth & guess).sum(0), truth.sum(0) + guess.sum(0)
    macro = np.where(all_of_both > 0, right / np.maximum(1, all_of_both), 0.0).mean()
    return float(right.sum() / max(1, all_of_both.sum())), float(macro)


def _table(truth: Array, guess: Array, labels: Sequence[str]) -> str:
    """Return precision, recall and F1 of each label as text."""
    from sklearn.metrics import classification_report  # noqa: PLC0415  (takes seconds)

    each = {"target_names": labels, "zero_division": 0, "digits": 3}
    if len(labels) > 1:
        return str(classification_report(truth, guess, **each))
    return str(classification_report(truth[:, 0].astype(int), guess[:, 0].astype(int), labels=[1], **each))


def _named(answer: Answer) -> tuple[Counter[str], Counter[str]]:
    """Return the labels that there are, and those that were named."""
    return Counter(answer.example.labels), Counter(item["label"] for item in answer.output["labels"])


def _count(pairs: Sequence[tuple[Counter[str], Counter[str]]]) -> tuple[list[int], list[int], list[int]]:
    """Return by row the labels that are right, named wrongly, and missed."""
    right = [(truth & guess).total() for truth, guess in pairs]
    wrong = [(guess - truth).total() for truth, guess in pairs]
    return right, wrong, [(truth - guess).total() for truth, guess in pairs]


def _sample_macro_f1(pairs: Sequence[tuple[Counter[str], Counter[str]]], labels: Sequence[str]) -> Sampled:
    """Return the mean F1 of all labels as what can be drawn again; one that no row has and none names counts 0."""
    hot = [np.array([[pair[at][label] for label in labels] for pair in pairs], np.float64) for at in (0, 1)]

    def compute(sums: Array) -> Array:
        right, there, named = np.split(sums, 3, axis=-1)
        return np.asarray((2 * right / np.maximum(there + named, 1)).mean(-1))

    columns = np.concatenate([np.minimum(*hot), *hot], axis=1)
    return Sampled(columns, np.ones(len(columns), np.int64), compute)


def _events(answers: Sequence[Answer]) -> Events | None:
    """Return the score of each named label, and whether the text has it; None where none is named."""
    pairs = [
        (item["score"], item["label"] in answer.example.labels)
        for answer in answers
        for item in answer.output["labels"]
    ]
    return Events(*np.array(pairs, np.float64).T) if pairs else None
