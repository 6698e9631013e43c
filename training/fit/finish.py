"""After the last step: calibrate each task on its validation rows and choose its thresholds."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ...schemas.manifest import Calibration, TaskSpec, ThresholdRows, Thresholds
from ..data.example import Example
from ..kinds.calibration import (
    accept_threshold,
    label_threshold,
    served_scores,
    temperature_of,
    temperature_of_labels,
    withholding_threshold,
)
from ..prepare.tasks import TaskData
from .encoding import encode

log = logging.getLogger(__name__)
Score = Callable[[Sequence[Example]], list[NDArray[Any]]]
"""Returns logits in fp32: [C] for each text, for tagging [S, C]."""


def finish(data: TaskData, score: Score, tokenizer: Tokenizer) -> TaskSpec:
    """Return the task's spec with temperature and thresholds; `tokenizer` cuts texts as `score` does."""
    rule, logits, chosen = data.task.thresholds, score(data.validation), Thresholds()
    chosen_on = None
    index = {label: number for number, label in enumerate(data.labels)}
    if data.kind.per_token:
        calibration = _calibrate_words(data, logits, tokenizer, index)
    elif data.task.kind == "multi_label":
        truth = np.array([[label in example.labels for label in data.labels] for example in data.validation], float)
        stacked = np.stack(logits)
        calibration = temperature_of_labels(stacked, truth)
        if rule.label is not None:
            chosen = Thresholds(label=rule.label)
        else:
            chosen = Thresholds(label=label_threshold(stacked, truth, calibration))
            chosen_on = _count(truth.sum(1) == 0)
    else:
        stacked, truth = np.stack(logits), np.array([index[example.labels[0]] for example in data.validation])
        calibration = temperature_of(stacked, truth)
        chosen, chosen_on = _withholding(data, stacked, score, calibration)
    return data.spec.model_copy(
        update={
            "calibration": calibration,
            "calibration_rows": len(data.validation),
            "thresholds": chosen,
            "threshold_rows": chosen_on,
        }
    )


def _count(others: NDArray[Any]) -> ThresholdRows:
    return ThresholdRows(genuine=int((~others).sum()), others=int(others.sum()))


def _calibrate_words(
    data: TaskData, logits: Sequence[NDArray[Any]], tokenizer: Tokenizer, index: dict[str, int]
) -> Calibration:
    """Choose the temperature of the words' tags. It changes the scores of spans, never the spans."""
    encodings = encode([example.text for example in data.validation], tokenizer)
    targets = [data.kind.target(*pair, index) for pair in zip(data.validation, encodings, strict=True)]
    tags = np.concatenate([target[: len(rows)] for target, rows in zip(targets, logits, strict=True)])
    asked = data.kind.asked(torch.from_numpy(tags)).numpy()
    return temperature_of(np.concatenate(logits)[asked], tags[asked])


def _withholding(
    data: TaskData, logits: NDArray[Any], score: Score, calibration: Calibration
) -> tuple[Thresholds, ThresholdRows | None]:
    """Choose where to withhold: by the out-of-scope class where one is learned, else by the winner's score.

    Rows of the out-of-scope label are those to catch, all others are genuine, whichever of the others they are.
    """
    rule, scope = data.task.thresholds, data.task.out_of_scope
    given = Thresholds(accept=rule.accept, out_of_scope=rule.out_of_scope)
    if scope is None:
        return given, None
    examples = [*data.validation, *data.outside]
    if data.choosing:
        examples, logits = data.choosing, np.stack(score(data.choosing))
    elif data.outside:
        logits = np.concatenate([logits, np.stack(score(data.outside))])
    others = np.array([example.labels[0] == scope.label for example in examples])
    if others.all() or not others.any():
        return given, None
    scores = served_scores(logits, calibration)
    if scope.learn:
        doubt = scores[:, data.labels.index(scope.label)]
        cut = withholding_threshold(doubt[~others].tolist(), doubt[others].tolist(), rule.max_flagged)
        _warn_of_flagged(data, doubt[~others] >= cut)
        if given.out_of_scope is not None:
            return given, None
        return given.model_copy(update={"out_of_scope": cut}), _count(others)
    best = scores.max(-1)
    least = accept_threshold(best[~others].tolist(), best[others].tolist(), rule.max_flagged)
    _warn_of_flagged(data, best[~others] < least)
    if given.accept is not None:
        return given, None
    return given.model_copy(update={"accept": least}), _count(others)


def _warn_of_flagged(data: TaskData, flagged: NDArray[Any]) -> None:
    """Say where no threshold withholds as few genuine texts as the recipe allows."""
    limit = data.task.thresholds.max_flagged
    if limit is not None and flagged.mean() > limit + 1e-9:
        log.warning(
            "task %s: no threshold withholds at most %.1f %% of the genuine texts; the one chosen withholds %.1f %% of %d",
            *(data.name, 100 * limit, 100 * flagged.mean(), len(flagged)),
        )
