"""The rows of a step as tensors: texts of several tasks padded together, the targets by task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from ...compute.sampler import StepRows
from ...model.padding import pad
from ...prepare.tasks import TaskData
from .encoding import Part
from .soft_targets import SoftTargets, soft_targets

PASS_TOKENS: Final = 100
"""What one more forward pass costs on a CPU, in tokens of padding (MiniLM-L6). A GPU always takes one pass."""


@dataclass(frozen=True, slots=True)
class TaskBatch:
    """What one task is asked in a step: its place among the texts, and the target as its kind collates it."""

    task: int
    rows: list[int]
    texts: slice
    target: Tensor
    soft: SoftTargets | None = None
    taught: SoftTargets | None = None
    """What a teacher answers to the rows."""
    pooled: Tensor | None = None
    """The texts as the head of the task reads them, where the encoder is not needed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass: ids and mask [B, S] of the texts of its tasks, one task behind the other."""

    ids: Tensor
    mask: Tensor
    tasks: list[TaskBatch]
    tokens: int
    """Tokens without padding."""


def collate(parts: Sequence[Part], tasks: Sequence[TaskData], step: StepRows, device: str) -> list[Batch]:
    """Put the rows of a step into one batch for each forward pass, and one more for each task whose rows are pooled already.
    `parts[i]` are the encoded rows of `tasks[i]`.
    """
    lengths = [part.lengths for part in parts]
    pooled = [[own] for own in step if parts[own[0]].pooled is not None]
    others = [own for own in step if parts[own[0]].pooled is None]
    passes = [others] if device == "cuda" and others else forward_passes(others, lengths)
    return [_collate(parts, tasks, rows, device) for rows in (*passes, *pooled)]


def forward_passes(step: StepRows, lengths: Sequence[Sequence[int]]) -> list[StepRows]:
    """Divide the tasks of a step among forward passes: a task of longer texts begins one where that saves padding."""
    passes: list[StepRows] = []
    width = size = 0
    for width_now, task, rows in sorted((max(lengths[task][row] for row in rows), task, rows) for task, rows in step):
        if not passes or (width_now - width) * size > PASS_TOKENS:
            passes.append([])
            size = 0
        passes[-1].append((task, rows))
        width, size = width_now, size + len(rows)
    return passes


def _collate(parts: Sequence[Part], tasks: Sequence[TaskData], step: StepRows, device: str) -> Batch:
    ids, mask = pad([parts[task].ids[row] for task, rows in step for row in rows])
    width, start, by_task = ids.shape[1], 0, []
    for task, rows in step:
        part, texts = parts[task], slice(start, start + len(rows))
        target = tasks[task].kind.collate([part.targets[row] for row in rows], width).to(device)
        soft = soft_targets([part.held.get(row) for row in rows], width)
        taught = soft_targets([part.taught[row] for row in rows], width) if part.taught is not None else None
        pooled = part.pooled.choose(rows) if part.pooled is not None else None
        held, learned = (each.to(device) if each is not None else None for each in (soft, taught))
        by_task.append(TaskBatch(task, rows, texts, target, held, learned, pooled))
        start = texts.stop
    return Batch(ids.to(device), mask.to(device), by_task, int(mask.sum()))
