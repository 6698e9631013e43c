"""FAMO, fast adaptive multitask optimisation (Liu, Feng, Stone and Liu 2023): all losses fall at the same rate.

A step minimises c * sum(z_i * log L_i) with z = softmax of learned logits; so the weight of L_i is c * z_i / L_i, and c makes
the mean of the weights 1. The logits follow how much each log-loss fell in the step on the same rows: one more forward pass.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from .weighting import TakenStep, Weighting

LEARNING_RATE: Final = 2.5e-2
DECAY: Final = 1e-3
"""Of the logits, towards equal z: the paper's gamma."""
LEAST_LOSS: Final = 1e-8


class FastAdaptive(Weighting):
    """`tasks`: how many there are."""

    measures_again: ClassVar[bool] = True
    needs_whole_step: ClassVar[bool] = True

    def __init__(self, tasks: int, lr: float | None = None) -> None:
        self._logits = nn.Parameter(torch.zeros(tasks))
        self._optimiser = torch.optim.Adam([self._logits], lr=lr or LEARNING_RATE, weight_decay=DECAY)

    def weigh(self, step: int, losses: Mapping[int, Tensor]) -> dict[int, float]:
        shares = torch.softmax(self._logits.detach(), 0).tolist()
        raw = {task: shares[task] / max(float(loss), LEAST_LOSS) for task, loss in losses.items()}
        return {task: len(raw) * weight / sum(raw.values()) for task, weight in raw.items()}

    def learn(self, taken: TakenStep) -> None:
        fell = torch.zeros_like(self._logits)
        for task, after in taken.losses_after.items():
            both = torch.tensor([taken.losses[task], after], dtype=torch.float64).clamp_min(LEAST_LOSS).log()
            fell[task] = both[0] - both[1]
        shares = torch.softmax(self._logits, 0)
        (self._logits.grad,) = torch.autograd.grad(shares, self._logits, grad_outputs=fell)
        self._optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        moments = self._optimiser.state[self._logits]
        return {"logits": self._logits.tolist(), **{name: value.tolist() for name, value in moments.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        held = {name: torch.tensor(value) for name, value in state.items()}
        with torch.no_grad():
            self._logits.copy_(held.pop("logits"))
        self._optimiser.state[self._logits] = held
