"""The rows that a retraining chooses calibration and thresholds on: those that stand for traffic, task by task.

Corrections were made because an answer was wrong, so most are hard: a temperature chosen on many of them is too high for
traffic. They choose only for labels that nothing else has rows of, and of these no more than an old label has on average.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ...schemas.manifest import ModelManifest
from ..data.example import Example, labels_of
from ..kinds.calibration import FEW_ROWS
from ..prepare.data_report import TaskReport
from ..prepare.tasks import TaskData
from .balance import count

LEAST_TRAFFIC: Final = FEW_ROWS
"""Fewer texts drawn at random choose nothing, and all of them judge."""


@dataclass(frozen=True)
class CalibrationRows:
    """`rows` to choose on, and why the limits of the current version are kept all the same."""

    rows: list[Example] = field(default_factory=list)
    reason_to_keep: str = ""


def choose_calibration_rows(
    data: TaskData | None, traffic: Sequence[Example], new: Sequence[Example] = (), *, learned: bool
) -> CalibrationRows:
    """Return a task's old validation rows and the texts drawn at random, and rows of labels that these lack.

    `data` are the old data, `traffic` the texts drawn at random, `new` rows with new labels that are not trained on.
    `learned`: the current version's head has learned the old validation rows.
    """
    old, outside = (data.calibrating, data.outside) if data is not None else ([], [])
    base = [*traffic] if learned else [*old, *traffic]
    if not base:
        why = "the current version has learned its old validation rows" if old else "it has no old validation rows"
        return CalibrationRows([*old, *outside], f"{why}, and the texts drawn at random are too few")
    return CalibrationRows([*base, *outside, *rows_of_lacking_labels(base, new)])


def learned_rows(manifest: ModelManifest, task: str) -> int:
    """Return how many of its validation rows the head of a model has learned."""
    report = manifest.data.get(task)
    return TaskReport.model_validate(report).learned_validation if report is not None else 0


def rows_of_lacking_labels(base: Sequence[Example], rows: Sequence[Example]) -> list[Example]:
    """Return rows with labels that `base` has no row of: of each as many as a label of `base` has on average, at least one."""
    known = count(base)
    most = max(1, round(known.total() / max(1, len(known))))
    counted, taken, found = count(rows), Counter[str](), []
    for example in rows:
        lacking = sorted(label for label in labels_of(example) if label not in known)
        label = min(lacking, key=lambda each: counted[each], default=None)
        if label is not None and taken[label] < most:
            taken[label] += 1
            found.append(example)
    return found
