"""Random weights (Lin et al. 2022), drawn anew in each step: the control that a method has to beat."""

from collections.abc import Mapping
from hashlib import sha256

import torch
from torch import Tensor

from .weighting import Weighting


class Random(Weighting):
    """T * softmax of normal numbers, so that the mean is 1. They follow from seed and step: nothing is held."""

    def __init__(self, tasks: int, seed: int) -> None:
        self._tasks, self._seed = tasks, seed

    def weigh(self, step: int, losses: Mapping[int, Tensor]) -> dict[int, float]:
        number = int.from_bytes(sha256(f"{self._seed} {step} weights".encode()).digest()[:4], "big")
        drawn = torch.randn(self._tasks, generator=torch.Generator().manual_seed(number))
        weights = (self._tasks * torch.softmax(drawn, 0)).tolist()
        return {task: weights[task] for task in losses}
