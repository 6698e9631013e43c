"""What the trackers and the curves show of a run: every 20 steps and at each scoring the losses, learning rates, gradients, speed and memory."""

import math
import resource
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, NoReturn, Self

import torch
from tqdm import tqdm

from ...run_folders.curves import Curves
from ..setup import Fitting, SinceEntry
from ..steps.gradient import StepFigures

EVERY: Final = 20
"""The most steps between two entries."""
KEPT: Final = 0.98
"""How much of the smoothed loss remains at each step."""


class TrainingLog:
    """Collects figures at each step and writes them every 20 steps and at each scoring, in the first process. The smoothed
    losses of the run are kept up to date in every process.
    """

    def __init__(self, run: Fitting) -> None:
        self._run, self._accelerator = run, run.accelerator
        self._names, self._clip = [data.name for data in run.tasks], run.recipe.optimiser.clip
        self._tokens, self._since = 0, time.monotonic()
        self._curves = Curves(run.folder.path)

    def __enter__(self) -> Self:
        """Open the trackers and the curves. Those that can drop the entries behind the step that the run goes on from."""
        if self._accelerator.is_main_process:
            taken = self._run.standing.before + self._run.standing.step
            self._curves.begin(taken)
            options = {"tensorboard": {"purge_step": taken + 1}}
            self._accelerator.init_trackers(self._run.recipe.name, init_kwargs=options)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for tracker in self._accelerator.trackers:
            tracker.finish()
        self._accelerator.trackers.clear()

    def add_step(self, found: StepFigures) -> None:
        """Take one step into account."""
        smoothed = self._run.standing.smoothed
        for task, value in found.losses.items():
            name = self._names[task]
            smoothed[name] = KEPT * smoothed.get(name, value) + (1 - KEPT) * value
        counted = self._run.standing.since_entry
        counted.steps += 1
        self._tokens += found.tokens
        if math.isfinite(found.norm):
            counted.clipped += found.norm > self._clip
            counted.norms += found.norm
        else:
            counted.skipped += 1

    def write_step(self, step: int, optimiser: torch.optim.Optimizer, found: StepFigures) -> None:
        """Write the entry of this step."""
        now, counted = time.monotonic(), self._run.standing.since_entry
        updates = max(1, counted.steps - counted.skipped)
        figures = {f"loss/{name}": value for name, value in self._run.standing.smoothed.items()}
        figures |= self._compare_tasks(found)
        figures |= {f"learning_rate/{group['name']}": group["lr"] for group in optimiser.param_groups}
        figures |= {
            "gradient/all": counted.norms / updates,
            "gradient/clipped_share": counted.clipped / updates,
            "speed/tokens_per_second": self._tokens / max(now - self._since, 1e-9),
            "memory/gigabytes": memory_used() / 1e9,
        }
        figures |= {f"teachers/{self._names[task]}": share for task, share in self._run.gold_shares.items()}
        if self._accelerator.scaler is not None:
            figures["gradient/skipped_share"] = counted.skipped / counted.steps
        self._write(step, figures)
        self._run.standing.since_entry = SinceEntry()
        self._tokens, self._since = 0, now

    def _compare_tasks(self, found: StepFigures) -> dict[str, float]:
        """Return how the tasks of the step compare: weights and gradients."""
        names = self._names
        figures = {f"weight/{names[task]}": alpha for task, alpha in found.alphas.items()} if len(names) > 1 else {}
        if found.compared is not None:
            figures |= {f"gradient/{names[task]}": norm for task, norm in found.compared.norms.items()}
            cosines = found.compared.cosines.items()
            figures |= {f"cosine/{names[one]}/{names[other]}": value for (one, other), value in cosines}
        return figures

    def write_metrics(self, step: int, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Write the validation metrics by task."""
        figures = {f"validation/{task}/{name}": v for task, score in scores.items() for name, v in score.items()}
        self._write(step, figures)

    def _write(self, step: int, figures: Mapping[str, float]) -> None:
        """`step` is that of the phase; entries have that of the run."""
        of_run = self._run.standing.before + step
        self._accelerator.log(figures, of_run)
        if self._accelerator.is_main_process:
            self._curves.add(of_run, figures)


def memory_used() -> int:
    """Return the most bytes that this process has held so far: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def open_bar(run: Fitting, *, quiet: bool) -> "tqdm[NoReturn]":
    """Return a progress bar over the steps; on a terminal only."""
    hidden = True if quiet else None
    return tqdm(
        total=len(run.plan), initial=run.standing.step, desc="train", unit="step", disable=hidden, mininterval=2
    )
