"""What follows the gradient of a step: the optimiser's update, and what methods learn from it."""

from collections.abc import Mapping, Sequence

import torch

from ...compute.dealing import StepRows
from ...compute.optimiser import seed_step
from ..setup import Fitting
from ..weights.weighting import TakenStep
from .gradient import measure_losses


def take_step(
    run: Fitting,
    optimiser: torch.optim.Optimizer,
    rows: StepRows,
    losses: Mapping[int, float],
    weights: Sequence[float],
) -> None:
    """Let the optimiser take a step, and the methods that weigh the tasks and change the encoder learn from it. `losses` and
    `weights` as in `compute_gradient`.
    """
    weighting, step = run.weighting, run.standing.step + 1
    scaled = {task: weights[task] * loss for task, loss in losses.items()}
    weighting.set_gradients(scaled)
    optimiser.step()
    if run.model.method is not None:
        run.model.method.after_step(step)
    optimiser.zero_grad(set_to_none=True)
    after: dict[int, float] = {}
    if weighting.measures_again:
        seed_step(
            run.recipe.seed, step, run.accelerator.process_index
        )  # the same dropout: the difference is the step's
        after = {task: weights[task] * loss for task, loss in measure_losses(run, rows).items()}
    weighting.learn(TakenStep(scaled, {task: len(own) for task, own in rows}, after))
