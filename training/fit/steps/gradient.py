"""The gradient of a step: the sum over its parts, each one pass of the network, and over the processes.

Every part and every process reads some rows of the step. Its mean losses count by their share of what is asked in the
whole step, so that the sum of all gradients is that of the step at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...compute.dealing import StepRows
from ..rows.batches import Ids, collate
from ..setup import Fitting
from ..state.processes import sum_gradients
from .joint_step import task_losses, weighted_sum
from .task_gradients import (
    Comparison,
    TaskGradients,
    add_all,
    add_shared,
    combine,
    compare_gradients,
    measured_parameters,
)


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
    alphas: dict[int, float]
    """The weight of each task's mean loss, or of its gradient."""
    compared: Comparison | None = None
    """The gradients of the tasks over shared parameters; None where they were not measured."""


def compute_gradient(
    run: Fitting, rows: StepRows, weights: Sequence[float], *, cpu_seconds: float = 0.0, measured: bool = False
) -> StepFigures:
    """Leave the clipped gradient of sum(alpha_i * mean loss of task i) in the parameters, in every process the same.

    alpha_i is weights[i] times what the run's method makes of it. A method that combines gradients replaces their sum over
    the shared parameters. `cpu_seconds` are those of this process. With `measured` the gradients are compared, too.
    """
    figures = torch.zeros(len(run.tasks) + 2, device=run.device)
    combines, step = run.weighting.combines_gradients, run.standing.step + 1
    gradients = TaskGradients(measured_parameters(run) if measured or combines else [])
    alphas = dict.fromkeys((task for task, _ in rows), 1.0)
    tokens = 0
    for part, shares in parts_of_step(run, rows):
        losses, read = losses_of_part(run, part, shares)
        scaled = {task: weights[task] * loss for task, loss in losses.items()}
        if combines:
            add_all(run, gradients, scaled)
        else:
            alphas |= run.weighting.weigh(step, {task: loss.detach() for task, loss in scaled.items()})
            if measured:
                add_shared(run, gradients, scaled)
            run.accelerator.backward(weighted_sum(losses, {task: alphas[task] * weights[task] for task in losses}))
        for task, loss in losses.items():
            figures[task] += loss.detach()
        tokens += read
    products = gradients.products(run, rows) if gradients.shared else None
    if combines and products is not None:
        alphas = combine(run, gradients, products, rows)
    add_penalty(run)
    trained = [p for p in run.model.parameters() if p.requires_grad]
    figures[-2:] = torch.tensor([tokens, cpu_seconds])
    figures = sum_gradients(run.accelerator, trained, figures)
    norm = run.accelerator.clip_grad_norm_(trained, run.recipe.optimiser.clip)
    *values, all_tokens, all_seconds, size = torch.cat([figures, norm.reshape(1)]).tolist()
    return StepFigures(
        losses={task: values[task] for task, _ in rows},
        norm=size,
        tokens=int(all_tokens),
        other_cpu_seconds=max(0.0, all_seconds - cpu_seconds),
        alphas={task: alphas[task] * weights[task] for task, _ in rows},
        compared=compare_gradients(products, rows, alphas) if products is not None else None,
    )


def add_penalty(run: Fitting) -> None:
    """Add the gradient of what the method around the encoder adds to the loss of a step; in one process, as all are summed."""
    penalty = run.model.method.penalty() if run.model.method is not None else None
    if penalty is not None and run.accelerator.is_main_process:
        run.accelerator.backward(penalty)


def losses_of_part(run: Fitting, part: StepRows, shares: Mapping[int, float]) -> tuple[dict[int, Tensor], int]:
    """Return the mean loss of each task on a part of a step times its share of the step, and the tokens that were read."""
    batches = collate(run.train, run.tasks, part, run.device)
    special, autocast = run.checkpoint.special, run.accelerator.autocast
    losses = task_losses(run.model, run.tasks, run.recipe, batches, special, autocast, run.gold_shares)
    return {task: loss * shares[task] for task, loss in losses.items()}, sum(batch.tokens for batch in batches)


def measure_losses(run: Fitting, rows: StepRows) -> dict[int, float]:
    """Return the mean loss of each task of a step with the weights as they are, in one process."""
    with torch.no_grad():
        losses, _ = losses_of_part(run, rows, dict.fromkeys((task for task, _ in rows), 1.0))
    return {task: float(loss) for task, loss in losses.items()}


def parts_of_step(run: Fitting, rows: StepRows) -> Iterator[tuple[StepRows, dict[int, float]]]:
    """Yield the rows of each part of this process, and the share of each task's whole that they are; no part is empty."""
    texts = [part.ids for part in run.train]
    own, count = rows_of_process(run, rows), run.recipe.accumulate
    for part in (divide_rows(own, texts, number, count) for number in range(count)):
        if part == rows:
            yield part, dict.fromkeys((task for task, _ in rows), 1.0)
        elif part:
            whole = dict(rows)
            yield (
                part,
                {task: asked_of(run, task, few) / max(1, asked_of(run, task, whole[task])) for task, few in part},
            )


def rows_of_process(run: Fitting, rows: StepRows) -> StepRows:
    """Return the rows of a step that this process reads."""
    texts = [part.ids for part in run.train]
    return divide_rows(rows, texts, run.accelerator.process_index, run.accelerator.num_processes)


def divide_rows(rows: StepRows, texts: Sequence[Sequence[Ids]], number: int, count: int) -> StepRows:
    """Return the rows of every count-th text, from `number` on; a task without such rows is left out. A text that several
    tasks read stays in one part. `texts[i]` are the token ids of the rows of task i.
    """
    if count == 1:
        return rows
    places: dict[bytes, int] = {}
    divided = [
        (task, [row for row in every if places.setdefault(texts[task][row].tobytes(), len(places)) % count == number])
        for task, every in rows
    ]
    return [(task, own) for task, own in divided if own]


def asked_of(run: Fitting, task: int, rows: Sequence[int]) -> int:
    """Return over how much a task's loss on these rows is a mean: rows, or words."""
    part, kind = run.train[task], run.tasks[task].kind
    width = max(part.lengths[row] for row in rows)
    return int(kind.asked(kind.collate([part.targets[row] for row in rows], width)).sum())
