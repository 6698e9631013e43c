"""The rows of a step as tensors: texts of several tasks padded together, each once, and the targets by task."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...compute.dealing import StepRows
from ...model.padding import pad
from ...prepare.tasks import TaskData
from .encoding import Part
from .soft_targets import SoftTargets, soft_targets

Ids = NDArray[np.integer[Any]]
PASS_TOKENS: Final = 100
"""What one more forward pass costs on a CPU, in tokens of padding (MiniLM-L6). A GPU always takes one pass."""


@dataclass(frozen=True, slots=True)
class TaskBatch:
    """What one task is asked in a step: its place among the texts, and the target as its kind collates it."""

    task: int
    rows: list[int]
    texts: slice | Tensor
    """Places among the texts of the pass."""
    target: Tensor
    soft: SoftTargets | None = None
    guessed: SoftTargets | None = None
    """What self-training guessed of the rows."""
    taught: SoftTargets | None = None
    """What a teacher answers to the rows."""
    pooled: Tensor | None = None
    """The texts as the head of the task reads them, where the encoder is not needed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass: ids and mask [B, S] of the texts of its tasks, each text once."""

    ids: Tensor
    mask: Tensor
    tasks: list[TaskBatch]
    tokens: int
    """Tokens without padding."""


def collate(parts: Sequence[Part], tasks: Sequence[TaskData], step: StepRows, device: str) -> list[Batch]:
    """Put the rows of a step into one batch for each forward pass, and one more for each task whose rows are pooled already.
    `parts[i]` are the encoded rows of `tasks[i]`.
    """
    texts = [part.ids for part in parts]
    pooled = [[own] for own in step if parts[own[0]].pooled is not None]
    others = [own for own in step if parts[own[0]].pooled is None]
    passes = [others] if device == "cuda" and others else forward_passes(others, texts)
    return [_collate(parts, tasks, rows, device) for rows in (*passes, *pooled)]


def forward_passes(step: StepRows, texts: Sequence[Sequence[Ids]]) -> list[StepRows]:
    """Divide the tasks of a step among forward passes: a task of longer texts begins one where that saves padding. Tasks that
    have a text in common share a pass. `texts[i]` are the token ids of the rows of task i.
    """
    passes: list[StepRows] = []
    width = size = 0
    for width_now, count, tasks in sorted(_groups_of_texts(step, texts)):
        if not passes or (width_now - width) * size > PASS_TOKENS:
            passes.append([])
            size = 0
        passes[-1].extend(tasks)
        width, size = width_now, size + count
    return passes


def _groups_of_texts(step: StepRows, texts: Sequence[Sequence[Ids]]) -> Iterator[tuple[int, int, StepRows]]:
    """Yield the longest text, the number of texts, and the tasks that have a text in common, directly or through others."""
    groups: list[tuple[dict[bytes, int], StepRows]] = []
    for task, rows in step:
        own = {texts[task][row].tobytes(): len(texts[task][row]) for row in rows}
        tasks = [(task, rows)]
        for group in [each for each in groups if each[0].keys() & own.keys()]:
            groups.remove(group)
            own, tasks = own | group[0], [*group[1], *tasks]
        groups.append((own, tasks))
    for own, tasks in groups:
        yield max(own.values()), len(own), tasks


def _collate(parts: Sequence[Part], tasks: Sequence[TaskData], step: StepRows, device: str) -> Batch:
    places: dict[bytes, int] = {}
    by_task_places = [
        [places.setdefault(parts[task].ids[row].tobytes(), len(places)) for row in rows] for task, rows in step
    ]
    ids, mask = pad([np.frombuffer(text, np.int32) for text in places])
    width, by_task = ids.shape[1], []
    for (task, rows), own in zip(step, by_task_places, strict=True):
        part = parts[task]
        target = tasks[task].kind.collate([part.targets[row] for row in rows], width).to(device)
        soft, guessed = (soft_targets([each.get(row) for row in rows], width) for each in (part.held, part.guessed))
        taught = soft_targets([part.taught[row] for row in rows], width) if part.taught is not None else None
        pooled = part.pooled.choose(rows) if part.pooled is not None else None
        held, guess, learned = (each.to(device) if each is not None else None for each in (soft, guessed, taught))
        by_task.append(TaskBatch(task, rows, _as_index(own, device), target, held, guess, learned, pooled))
    return Batch(ids.to(device), mask.to(device), by_task, int(mask.sum()))


def _as_index(places: list[int], device: str) -> slice | Tensor:
    """Return places as a slice, which copies nothing, where they follow each other."""
    run = range(places[0], places[0] + len(places))
    return slice(run.start, run.stop) if places == [*run] else torch.tensor(places, device=device)
