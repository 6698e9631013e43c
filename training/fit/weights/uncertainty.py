"""Weights by uncertainty (Kendall, Gal and Cipolla 2018): a learned log-variance s for each task.

A step minimises the sum of exp(-s) * L + s / 2 over the tasks; of a squared error, that of a Gaussian, exp(-s) * L / 2 + s / 2.
The addend s / 2 keeps a weight from falling to 0. At its optimum exp(-s) is 1 / L of a squared error, 1 / (2 L) of the others.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from .weighting import Weighting

LEARNING_RATE: Final = 1e-2


class Uncertainty(Weighting):
    """`squared`: whether each task's loss is a squared error."""

    def __init__(self, squared: Sequence[bool], lr: float | None = None) -> None:
        self._log_variances = [nn.Parameter(torch.zeros(())) for _ in squared]
        self._factors = [0.5 if is_squared else 1.0 for is_squared in squared]
        self._lr = lr or LEARNING_RATE

    def weigh(self, step: int, losses: Mapping[int, Tensor]) -> dict[int, float]:
        return {task: self._weight(task) for task in losses}

    def set_gradients(self, losses: Mapping[int, float]) -> None:
        """The derivative by s of weight * L + s / 2 is 1 / 2 - weight * L. Tasks without rows have none."""
        for task, parameter in enumerate(self._log_variances):
            found = losses.get(task)
            parameter.grad = None if found is None else torch.full_like(parameter, 0.5 - self._weight(task) * found)

    def parameters(self) -> dict[str, nn.Parameter]:
        return {f"log_variance.{task}": each for task, each in enumerate(self._log_variances)}

    @property
    def lr(self) -> float:
        return self._lr

    def _weight(self, task: int) -> float:
        return self._factors[task] * float(torch.exp(-self._log_variances[task].detach()))
