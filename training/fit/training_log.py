"""What TensorBoard shows of a run: every 20 steps the losses, learning rates, gradients, speed and memory."""

import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

EVERY: Final = 20
"""Steps between two entries."""
KEPT: Final = 0.98
"""How much of the smoothed loss remains at each step."""


class TrainingLog:
    """Collects figures at each step and writes them every 20 steps. `smoothed`, the loss of each task so far, is kept up to date."""

    def __init__(
        self, folder: Path, names: list[str], smoothed: dict[str, float], *, clip: float, first_step: int
    ) -> None:
        self._board = SummaryWriter(str(folder), purge_step=first_step)
        self._names, self._clip, self.smoothed = names, clip, smoothed
        self._steps = self._clipped = self._tokens = 0
        self._norms = 0.0
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._board.close()

    def add_step(self, losses: Mapping[int, float], norm: float, tokens: int) -> None:
        """Take one step into account: the loss by task, the gradient's norm before the clip, the tokens read."""
        for task, value in losses.items():
            name = self._names[task]
            self.smoothed[name] = KEPT * self.smoothed.get(name, value) + (1 - KEPT) * value
        self._steps += 1
        self._clipped += norm > self._clip
        self._norms += norm
        self._tokens += tokens

    def write_step(self, step: int, optimiser: torch.optim.Optimizer, by_task: Mapping[int, float]) -> None:
        """Write the entry of this step. `by_task` are the gradient norms by task."""
        now = time.monotonic()
        figures = {f"loss/{name}": value for name, value in self.smoothed.items()}
        figures |= {f"gradient/{self._names[task]}": norm for task, norm in by_task.items()}
        figures |= {f"learning_rate/{group['name']}": group["lr"] for group in optimiser.param_groups}
        figures |= {
            "gradient/all": self._norms / self._steps,
            "gradient/clipped_share": self._clipped / self._steps,
            "speed/tokens_per_second": self._tokens / max(now - self._since, 1e-9),
            "memory/gigabytes": memory_used() / 1e9,
        }
        self._write(step, figures)
        self._steps = self._clipped = self._tokens = 0
        self._norms, self._since = 0.0, now

    def write_metrics(self, step: int, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Write the validation metrics by task."""
        figures = {f"validation/{task}/{name}": v for task, score in scores.items() for name, v in score.items()}
        self._write(step, figures)

    def _write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)


def memory_used() -> int:
    """Return the most bytes that this process has held so far: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def gradient_norms(losses: Mapping[int, Tensor], weights: list[float], layer: nn.Module) -> dict[int, float]:
    """Return the norm of alpha_i * grad_i over the trained parameters of `layer`, by task; frees no graph.

    Over the last shared layer, as GradNorm (Chen et al. 2018) measures it: the backward pass goes no further, so that it
    costs a small part of a step.
    """
    trained = [p for p in layer.parameters() if p.requires_grad]
    if not trained:
        return {}
    norms = {}
    for task, loss in losses.items():
        found = torch.autograd.grad(weights[task] * loss, trained, retain_graph=True, allow_unused=True)
        norms[task] = float(torch.nn.utils.get_total_norm([g for g in found if g is not None]))
    return norms
