"""Interrupts a training where a test says, and holds one that goes on against one that was never interrupted."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from murmura.training.fit.loop import fit
from murmura.training.fit.steps import gradient
from murmura.training.run_folders.curves import read_curves
from murmura.training.run_folders.run_folder import WEIGHTS, RunRecord


class Stopped(BaseException):
    """Raised in the middle of a run; nothing catches it, as it is with a kill."""


class TwoRuns(NamedTuple):
    """The records of a run that was not interrupted and of one that was, and their folders."""

    whole: RunRecord
    resumed: RunRecord
    whole_folder: Path
    resumed_folder: Path


def stop_before(step: int | None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Interrupt the run when it collates the rows of this step; without one never. The list grows with each step."""
    collate = gradient.collate

    def collate_or_stop(parts: Any, tasks: Any, rows: Any, device: str) -> Any:
        calls.append(rows)
        if len(calls) == step:
            raise Stopped
        return collate(parts, tasks, rows, device)

    calls: list[Any] = []
    monkeypatch.setattr(gradient, "collate", collate_or_stop)
    return calls


def fit_until(step: int, recipe: Path, data: Path, run: Path, **keys: Any) -> None:
    """Train until the run collates the rows of this step, and check that it did not come to its end before."""
    with pytest.MonkeyPatch.context() as patch:
        stop_before(step, patch)
        with pytest.raises(Stopped):
            fit(recipe, data, run, quiet=True, **keys)


def curves_of(run: Path) -> list[dict[str, float]]:
    """Return the entries of a run's curves without what depends on the machine."""
    of_machine = ("seconds", "speed/", "memory/")
    return [
        {name: value for name, value in entry.items() if not name.startswith(of_machine)} for entry in read_curves(run)
    ]


def assert_resumed_equals_whole(
    recipe: Path,
    data: Path,
    folder: Path,
    *,
    step: int,
    again: Sequence[int] = (),
    meanwhile: Callable[[Path], None] = lambda run: None,
) -> TwoRuns:
    """Train the recipe twice in `folder`, once with an interruption before a step, and check that both leave the same bytes
    and curves.

    `again` are further interruptions, before the step of that number since the run went on. `meanwhile` is called with the run
    folder while the run is interrupted.
    """
    whole, run = folder / "whole", folder / "run"
    first = fit(recipe, data, whole, quiet=True)
    fit_until(step, recipe, data, run)
    for further in again:
        fit_until(further, recipe, data, run, resume=True)
    meanwhile(run)
    resumed = fit(recipe, data, run, quiet=True, resume=True)
    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    left_out = {"cpu_seconds", "encoder_folder"}  # an encoder that a stage makes lies in the run folder
    assert resumed.model_dump(exclude=left_out) == first.model_dump(exclude=left_out)
    assert not [*run.glob("state.*"), *run.glob("phase-*")]
    assert curves_of(run) == curves_of(whole)
    return TwoRuns(first, resumed, whole, run)
