"""The gradient of a step: the sum over its parts, each one pass of the network, and over the processes.

Every part and every process reads some rows of the step. Its mean losses count by their share of what is asked in the
whole step, so that the sum of all gradients is that of the step at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compute.sampler import StepRows
from .batches import collate
from .joint_step import task_losses, weighted_sum
from .processes import sum_gradients, sum_tensors
from .setup import Fitting


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What a step was: sums over all parts and processes."""

    losses: dict[int, float]
    """The mean loss of each task of the step, by the task's number."""
    norm: float
    """Of the gradient before the clip."""
    tokens: int
    """Without padding."""
    other_cpu_seconds: float
    """Of the other processes."""
    norms: dict[int, float]
    """By task, over the last shared layer; empty where they were not measured."""


def compute_gradient(
    run: Fitting, rows: StepRows, weights: Sequence[float], *, cpu_seconds: float = 0.0, measured: bool = False
) -> StepFigures:
    """Leave the clipped gradient of sum(alpha_i * mean loss of task i) in the parameters, in every process the same.

    `cpu_seconds` are those of this process. With `measured` the norms by task are returned, too.
    """
    figures = torch.zeros(len(run.tasks) + 2, device=run.device)
    by_task: dict[int, Tensor] = {}
    tokens = 0
    for part, shares in parts_of_step(run, rows):
        batches = collate(run.train, run.tasks, part, run.device)
        losses = task_losses(
            run.model, run.tasks, run.recipe, batches, run.checkpoint.special, run.accelerator.autocast
        )
        losses = {task: loss * shares[task] for task, loss in losses.items()}
        if measured:
            add_task_gradients(run, by_task, losses, weights)
        run.accelerator.backward(weighted_sum(losses, weights))
        for task, loss in losses.items():
            figures[task] += loss.detach()
        tokens += sum(batch.tokens for batch in batches)
    trained = [p for p in run.model.parameters() if p.requires_grad]
    figures[-2:] = torch.tensor([tokens, cpu_seconds])
    figures = sum_gradients(run.accelerator, trained, figures)
    norm = run.accelerator.clip_grad_norm_(trained, run.recipe.optimiser.clip)
    *values, all_tokens, all_seconds, size = torch.cat([figures, norm.reshape(1)]).tolist()
    losses_by_task = {task: values[task] for task, _ in rows}
    norms = measure_norms(run, by_task, rows) if measured else {}
    return StepFigures(losses_by_task, size, int(all_tokens), max(0.0, all_seconds - cpu_seconds), norms)


def parts_of_step(run: Fitting, rows: StepRows) -> Iterator[tuple[StepRows, dict[int, float]]]:
    """Yield the rows of each part of this process, and the share of each task's whole that they are; no part is empty."""
    own = divide_rows(rows, run.accelerator.process_index, run.accelerator.num_processes)
    count = run.recipe.accumulate
    for part in (divide_rows(own, number, count) for number in range(count)):
        if part == rows:
            yield part, dict.fromkeys((task for task, _ in rows), 1.0)
        elif part:
            whole = dict(rows)
            yield (
                part,
                {task: asked_of(run, task, few) / max(1, asked_of(run, task, whole[task])) for task, few in part},
            )


def divide_rows(rows: StepRows, number: int, count: int) -> StepRows:
    """Return every count-th row of each task, from `number` on; a task without such rows is left out."""
    return [(task, every[number::count]) for task, every in rows if number < len(every)]


def asked_of(run: Fitting, task: int, rows: Sequence[int]) -> int:
    """Return over how much a task's loss on these rows is a mean: rows, or words."""
    part, kind = run.train[task], run.tasks[task].kind
    width = max(part.lengths[row] for row in rows)
    return int(kind.asked(kind.collate([part.targets[row] for row in rows], width)).sum())


def add_task_gradients(
    run: Fitting, found: dict[int, Tensor], losses: Mapping[int, Tensor], weights: Sequence[float]
) -> None:
    """Add alpha_i * grad_i over the trained parameters of the last shared layer, one vector a task; frees no graph.

    Over the last shared layer, as GradNorm (Chen et al. 2018) measures it: the backward pass goes no further, so that it
    costs a small part of a step.
    """
    trained = [p for p in run.model.last_layer.parameters() if p.requires_grad]
    if not trained:
        return
    scale = run.accelerator.scaler.get_scale() if run.accelerator.scaler else 1.0
    for task, loss in losses.items():
        target = scale * weights[task] * loss
        by_parameter = torch.autograd.grad(target, trained, retain_graph=True, materialize_grads=True)
        vector = torch.cat([gradient.flatten() for gradient in by_parameter]) / scale
        found[task] = found[task] + vector if task in found else vector


def measure_norms(run: Fitting, found: Mapping[int, Tensor], rows: StepRows) -> dict[int, float]:
    """Return the norm of each task's vector, summed over the processes."""
    size = sum(p.numel() for p in run.model.last_layer.parameters() if p.requires_grad)
    none = torch.zeros(size, device=run.device)
    vectors = {task: sum_tensors(run.accelerator, found.get(task, none)) for task, _ in rows if size}
    return {task: float(vector.norm()) for task, vector in vectors.items()}
