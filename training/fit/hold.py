"""Holding on to what a model answered before: learning without forgetting (Li and Hoiem 2016).

The network begins as the model whose answers are to be kept, so its own first answers are the targets; nothing is stored.
"""

from collections.abc import Sequence

import numpy as np

from ...runtime.errors import SetupError
from ..kinds.kind import NEVER
from ..model.network import MultiTask, logits_of
from ..prepare.tasks import TaskData
from .encoding import Part
from .soft_targets import Held


def hold_answers(
    model: MultiTask, task: int, data: TaskData, part: Part, known: Sequence[str] | None
) -> dict[int, Held]:
    """Ask the network as it begins about the rows marked `soft`. `known` are the labels of the head that went on."""
    rows = [row for row, example in enumerate(data.train) if example.soft]
    if not rows:
        return {}
    if not known or not set(known) <= set(data.labels):
        raise SetupError(f"task {data.name}: soft rows need an encoder that is a model of ours with this task's labels")
    old = np.isin(data.labels, known)
    device = next(model.parameters()).device.type
    found = logits_of(model, task, [part.ids[row] for row in rows], device=device, bf16=False)
    every = np.ones_like(old)
    return {
        row: Held(np.where(old, logits, NEVER).astype(np.float32), old if data.train[row].soft == "own" else every)
        for row, logits in zip(rows, found, strict=True)
    }
