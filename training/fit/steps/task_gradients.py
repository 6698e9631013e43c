"""The gradients of the tasks of a step, apart: their norms, the cosines between them, and their combination."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from ...compute.dealing import StepRows
from ...compute.optimiser import seed_step
from ..setup import Fitting
from ..state.processes import scale_of, sum_tensors

_PROCESS: Final = -2
"""Seeds what a method draws, in every process the same; the steps of the run have the numbers of processes."""


@dataclass
class TaskGradients:
    """The gradient of each task over shared parameters, one vector [P] a task, added up over the parts of a step."""

    shared: Sequence[nn.Parameter]
    vectors: dict[int, Tensor] = field(default_factory=dict)

    def add(self, task: int, gradients: Sequence[Tensor], scale: float) -> None:
        """Add the gradients of a part, one for each shared parameter, divided by `scale`."""
        vector = torch.cat([gradient.flatten() for gradient in gradients]) / scale
        self.vectors[task] = self.vectors[task] + vector if task in self.vectors else vector

    def products(self, run: Fitting, rows: StepRows) -> Tensor:
        """Return the inner products [T, T] of the gradients of the step's tasks, in the order of `rows`; of no parameters zeros."""
        size = sum(p.numel() for p in self.shared)
        none = torch.zeros(size, device=run.device)
        matrix = torch.stack([sum_tensors(run.accelerator, self.vectors.get(task, none)) for task, _ in rows])
        return matrix @ matrix.T


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the gradients of the tasks of a step compare, by the tasks' numbers."""

    norms: dict[int, float]
    cosines: dict[tuple[int, int], float]
    """Of each pair; none where a gradient is 0."""


def compare_gradients(products: Tensor, rows: StepRows, alphas: Mapping[int, float]) -> Comparison:
    """Return the norms, each times the weight of its task, and the cosines, from inner products [T, T]."""
    lengths = products.diagonal().clamp_min(0).sqrt().tolist()
    tasks = [task for task, _ in rows]
    cosines = {
        (one, other): float(products[a, b]) / (lengths[a] * lengths[b])
        for a, one in enumerate(tasks)
        for b, other in enumerate(tasks[a + 1 :], a + 1)
        if lengths[a] * lengths[b] > 0
    }
    return Comparison({task: abs(alphas[task]) * lengths[at] for at, task in enumerate(tasks)}, cosines)


def measured_parameters(run: Fitting) -> list[nn.Parameter]:
    """Return over which trained parameters gradients are compared for the log.

    By default over the last shared layer, as GradNorm (Chen et al. 2018) measures it: the backward pass goes no further, so
    that it costs a small part of a step.
    """
    whole = run.recipe.weights.combines_gradients or run.recipe.weights.cosine == "encoder"
    module = run.model.encoder if whole else run.model.last_layer
    return [p for p in module.parameters() if p.requires_grad]


def add_shared(run: Fitting, found: TaskGradients, losses: Mapping[int, Tensor]) -> None:
    """Add the gradient of each loss over the shared parameters alone; frees no graph."""
    scale = scale_of(run.accelerator)
    for task, loss in losses.items() if found.shared else ():
        gradients = torch.autograd.grad(scale * loss, found.shared, retain_graph=True, materialize_grads=True)
        found.add(task, gradients, scale)


def add_all(run: Fitting, found: TaskGradients, losses: Mapping[int, Tensor]) -> None:
    """Add the gradient of each loss over the shared parameters, and over all others into these: each is one task's own."""
    scaler, shared = run.accelerator.scaler, {id(p) for p in found.shared}
    own = [p for p in run.model.parameters() if p.requires_grad and id(p) not in shared]
    last = len(losses) - 1
    for at, (task, loss) in enumerate(losses.items()):
        inputs = [*found.shared, *own]
        target = loss if scaler is None else scaler.scale(loss)
        gradients = torch.autograd.grad(target, inputs, retain_graph=at < last, allow_unused=True)
        of_shared = zip(found.shared, gradients, strict=False)
        found.add(task, [torch.zeros_like(p) if g is None else g for p, g in of_shared], scale_of(run.accelerator))
        for parameter, gradient in zip(own, gradients[len(found.shared) :], strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def combine(run: Fitting, found: TaskGradients, products: Tensor, rows: StepRows) -> dict[int, float]:
    """Put the combined gradient of this process into the shared parameters; return the weight of each task's gradient.

    Gradients that are not finite are added up as they are: the step is refused, or left out, for that.
    """
    weights = torch.ones(len(rows), dtype=torch.float64)
    if bool(products.isfinite().all()):
        seed_step(run.recipe.seed, run.standing.step, _PROCESS)
        weights = run.weighting.combine(products.double())
    alphas = {task: weight for (task, _), weight in zip(rows, weights.tolist(), strict=True)}
    scale = scale_of(run.accelerator)
    mixed = [scale * alphas[task] * vector for task, vector in found.vectors.items()]
    if mixed:  # a process may have no rows of the step
        for parameter, part in zip(
            found.shared, sum(mixed[1:], mixed[0]).split([p.numel() for p in found.shared]), strict=True
        ):
            parameter.grad = part.view_as(parameter)
    return alphas
