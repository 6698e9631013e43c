"""After the last step: calibrate each task on its calibration rows (by default the validation part) and choose its thresholds."""

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray
from tokenizers import Tokenizer

from ....schemas.manifest import TaskSpec
from ...data.example import Example
from ...kinds.kind import CalibrationRows, ScoredReply
from ...prepare.tasks import TaskData
from ..rows.encoding import encode

Score = Callable[[Sequence[Example]], list[NDArray[Any]]]
"""Returns logits in fp32: [C] for each text, for tagging [S, C]."""


def finish(
    data: TaskData, score: Score, tokenizer: Tokenizer, replies: Sequence[tuple[Example, ScoredReply]] = ()
) -> TaskSpec:
    """Return the task's spec with calibration and thresholds; `tokenizer` cuts texts as `score` does. `replies` are those to
    validation rows, of a task that generates.
    """
    chosen = data.kind.calibrate(
        CalibrationRows(
            task=data.name,
            labels=data.labels,
            rule=data.task.thresholds,
            scope=data.task.out_of_scope,
            validation=data.calibrating,
            outside=data.outside,
            choosing=data.choosing,
            score=score,
            encode=lambda texts: encode(texts, tokenizer),
            training=data.train,
            replies=replies,
        )
    )
    update: dict[str, Any] = {"thresholds": chosen.thresholds, "threshold_rows": chosen.threshold_rows}
    if chosen.calibration is not None:
        update |= {"calibration": chosen.calibration, "calibration_rows": len(data.calibrating)}
    return data.spec.model_copy(update=update)
