"""The rows of a step as tensors: the texts of all tasks padded together, the targets by task."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .dataset import Part, TaskData, pad
from .hold import SoftTargets, soft_targets
from .sampler import StepRows


@dataclass(frozen=True, slots=True)
class TaskBatch:
    """What one task is asked in a step: its place among the texts, and the target as its kind collates it."""

    task: int
    rows: list[int]
    texts: slice
    target: Tensor
    soft: SoftTargets | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """ids and mask [B, S] of the texts of all tasks, one task behind the other."""

    ids: Tensor
    mask: Tensor
    tasks: list[TaskBatch]
    tokens: int
    """Tokens without padding."""


def collate(parts: Sequence[Part], tasks: Sequence[TaskData], step: StepRows, device: str) -> Batch:
    """Put the rows of a step into one batch with their targets. `parts[i]` are the encoded rows of `tasks[i]`."""
    ids, mask = pad([parts[task].ids[row] for task, rows in step for row in rows])
    width, start, by_task = ids.shape[1], 0, []
    for task, rows in step:
        part, texts = parts[task], slice(start, start + len(rows))
        target = tasks[task].kind.collate([part.targets[row] for row in rows], width).to(device)
        soft = soft_targets([part.held.get(row) for row in rows], width)
        by_task.append(TaskBatch(task, rows, texts, target, soft.to(device) if soft else None))
        start = texts.stop
    return Batch(ids.to(device), mask.to(device), by_task, int(mask.sum()))
