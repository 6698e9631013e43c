"""Dynamic weight average (Liu, Johns and Davison 2019): the slower a task's loss falls, the larger its weight.

w_i = T * softmax(r / temperature)_i over T tasks, where r_i is the mean loss of the last epoch by that of the epoch before. An
epoch is one pass over the task's own rows; until a task has had two, its r is 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from .weighting import TakenStep, Weighting

TEMPERATURE: Final = 2.0


@dataclass
class _Epochs:
    """The epochs of a task: of the one under way the sum of losses over rows, and the mean losses of the two before."""

    rows: int = 0
    total: float = 0.0
    last: float | None = None
    before: float | None = None

    @property
    def rate(self) -> float:
        return self.last / self.before if self.last is not None and self.before else 1.0


class DynamicAverage(Weighting):
    """`rows`: the training rows of each task."""

    def __init__(self, rows: Sequence[int], temperature: float | None = None) -> None:
        self._rows, self._temperature = rows, temperature or TEMPERATURE
        self._epochs = [_Epochs() for _ in rows]

    def weigh(self, step: int, losses: Mapping[int, Tensor]) -> dict[int, float]:
        rates = torch.tensor([epochs.rate for epochs in self._epochs], dtype=torch.float64)
        weights = (len(rates) * torch.softmax(rates / self._temperature, 0)).tolist()
        return {task: weights[task] for task in losses}

    def learn(self, taken: TakenStep) -> None:
        for task, loss in taken.losses.items():
            epochs, rows = self._epochs[task], taken.rows[task]
            epochs.rows, epochs.total = epochs.rows + rows, epochs.total + rows * loss
            if epochs.rows >= self._rows[task]:
                self._epochs[task] = _Epochs(last=epochs.total / epochs.rows, before=epochs.last)

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": [asdict(epochs) for epochs in self._epochs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._epochs = [_Epochs(**epochs) for epochs in state["epochs"]]
