"""Roughly how long trainings take: a few steps of the joint one are taken and timed, and thrown away."""

import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ..compute.phase_rows import count_phase
from ..fit.setup import prepare
from ..fit.steps.gradient import compute_gradient
from ..fit.steps.joint_step import loss_weights
from ..recipe.recipe import Recipe
from ..run_folders.run_folder import RunFolder
from .plan import count_reads

TIMED_STEPS: Final = 4
"""The first one is not counted."""

QUICK_S: Final = 20.0
"""A preparation that takes less is taken twice: the first one also imports what all need."""


class Speed(NamedTuple):
    """Wall seconds of this machine."""

    of_setup: float
    """Reading, encoding and opening the encoder, once a training."""
    of_row: float


def measure_speed(recipe: Recipe, data: Path) -> Speed:
    """Time what a training does before its first step, and steps from all over its plan."""
    first = _measure(recipe, data)
    return _measure(recipe, data) if first.of_setup < QUICK_S else first


def _measure(recipe: Recipe, data: Path) -> Speed:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="murmura-") as scratch:
        run = prepare(recipe.model_copy(update={"trackers": (), "phases": ()}), data, RunFolder(Path(scratch) / "run"))
        run.model.to(run.device)
        run.model.train()
        setup, weights = time.monotonic() - began, loss_weights(recipe, run.tasks)
        spread = max(1, len(run.plan) // TIMED_STEPS)
        steps = run.plan[::spread][:TIMED_STEPS]
        seconds, rows = 0.0, 0
        for number, step in enumerate(steps):
            began = time.monotonic()
            compute_gradient(run, step, weights)
            run.model.zero_grad(set_to_none=True)
            if number or len(steps) == 1:
                seconds += time.monotonic() - began
                rows += sum(len(own) for _, own in step)
    return Speed(setup, seconds / max(1, rows))


def count_rows(recipe: Recipe, rows: Mapping[str, int]) -> int:
    """Return how many rows a training reads in all its phases; `rows` are those of its tasks' training parts."""
    if not recipe.phases:
        return sum(count_reads(recipe, rows).values())
    return sum(count_phase(recipe, phase, rows).total for phase in recipe.phases)


def estimate_seconds(speed: Speed, rows: Iterable[int]) -> float:
    """Return the seconds of trainings that read so many rows each."""
    return sum(speed.of_setup + speed.of_row * count for count in rows)


def describe_seconds(seconds: float) -> str:
    """Return a duration in words, of two figures at most."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
