"""After the last step: calibrate each sentence task on its validation rows and choose its thresholds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schemas.manifest import Calibration, TaskSpec, Thresholds
from .data.example import Example
from .dataset import TaskData
from .thresholds import (
    accept_threshold,
    label_threshold,
    served_scores,
    temperature_of,
    temperature_of_labels,
    withholding_threshold,
)

Score = Callable[[Sequence[Example]], NDArray[Any]]


def finish(data: TaskData, score: Score) -> TaskSpec:
    """Return the task's spec with temperature and thresholds; `score` gives logits [N, C] in fp32."""
    rule = data.task.thresholds
    logits = score(data.validation)
    index = {label: number for number, label in enumerate(data.labels)}
    if data.task.kind == "multi_label":
        truth = np.array([[label in example.labels for label in data.labels] for example in data.validation], float)
        calibration = temperature_of_labels(logits, truth)
        chosen = Thresholds(label=rule.label if rule.label is not None else label_threshold(logits, truth, calibration))
    else:
        calibration = temperature_of(logits, np.array([index[example.labels[0]] for example in data.validation]))
        chosen = _withholding(data, logits, score, calibration)
    rows = len(data.validation)
    return data.spec.model_copy(update={"calibration": calibration, "calibration_rows": rows, "thresholds": chosen})


def _withholding(data: TaskData, logits: NDArray[Any], score: Score, calibration: Calibration) -> Thresholds:
    """Choose where to withhold: by the out-of-scope class where one is learned, else by the winner's score.

    Rows of the out-of-scope label are those to catch, all others are genuine, whichever of the others they are.
    """
    rule, scope = data.task.thresholds, data.task.out_of_scope
    given = Thresholds(accept=rule.accept, out_of_scope=rule.out_of_scope)
    if scope is None:
        return given
    examples = [*data.validation, *data.outside]
    if data.choosing:
        examples, logits = data.choosing, score(data.choosing)
    elif data.outside:
        logits = np.concatenate([logits, score(data.outside)])
    others = np.array([example.labels[0] == scope.label for example in examples])
    if others.all() or not others.any():
        return given
    scores = served_scores(logits, calibration)
    if scope.learn:
        doubt = scores[:, data.labels.index(scope.label)]
        cut = withholding_threshold(doubt[~others].tolist(), doubt[others].tolist(), rule.max_flagged)
        return given if given.out_of_scope is not None else given.model_copy(update={"out_of_scope": cut})
    best = scores.max(-1)
    least = accept_threshold(best[~others].tolist(), best[others].tolist(), rule.max_flagged)
    return given if given.accept is not None else given.model_copy(update={"accept": least})
