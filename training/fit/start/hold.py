"""Holding on to what a model answered before: learning without forgetting (Li and Hoiem 2016).

The network begins as the model whose answers are to be kept, so its own first answers are the targets; nothing is stored.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import SetupError
from ...compute.failures import memory_of
from ...kinds.kind import NEVER
from ...model.network import MultiTask, logits_of_tasks
from ...prepare.tasks import TaskData
from ..rows.encoding import Part
from ..rows.soft_targets import Held


@memory_of("answers to rows marked `soft`")
def hold_answers(
    model: MultiTask, tasks: Sequence[TaskData], parts: Sequence[Part], known: Mapping[str, Sequence[str]]
) -> list[dict[int, Held]]:
    """Ask the network as it begins about the rows of each task that are marked `soft`, each text once.

    `known` are by task the labels of the head that went on. Returns by task what was answered, by row.
    """
    asked = {at: rows for at, task in enumerate(tasks) if (rows := _soft_rows(task, known.get(task.name, ())))}
    places: dict[bytes, int] = {}
    texts: list[NDArray[np.int32]] = []
    place_of: dict[int, dict[int, int]] = {}
    for at, rows in asked.items():
        ids = [parts[at].ids[row] for row in rows]
        for each in ids:
            if places.setdefault(each.tobytes(), len(texts)) == len(texts):
                texts.append(each)
        place_of[at] = {row: places[each.tobytes()] for row, each in zip(rows, ids, strict=True)}
    wanted = {at: frozenset(own.values()) for at, own in place_of.items()}
    found = logits_of_tasks(model, wanted, texts, device=next(model.parameters()).device.type, bf16=False)
    return [
        {row: _hold(task, row, found[at][place], known) for row, place in place_of.get(at, {}).items()}
        for at, task in enumerate(tasks)
    ]


def _soft_rows(data: TaskData, known: Sequence[str]) -> list[int]:
    rows = [row for row, example in enumerate(data.train) if example.soft]
    if rows and (not known or not set(known) <= set(data.labels)):
        raise SetupError(f"task {data.name}: soft rows need an encoder that is a model of ours with this task's labels")
    return rows


def _hold(data: TaskData, row: int, logits: NDArray[np.float32], known: Mapping[str, Sequence[str]]) -> Held:
    old = np.isin(data.labels, known[data.name])
    compared = old if data.train[row].soft == "own" else np.ones_like(old)
    return Held(np.where(old, logits, NEVER).astype(np.float32), compared)
