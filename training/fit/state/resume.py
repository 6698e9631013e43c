"""The state of a run under way, from which `--resume` goes on: weights, optimiser, position.

Learning rates, rows and random numbers follow from the step, so they are not kept.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from ...compute.state_file import (
    UNREADABLE,
    CannotResume,
    further_tensors,
    read_state_file,
    restore_parameters,
    write_state_file,
)
from ...recipe.recipe import Recipe
from ...run_folders.provenance import Environment, describe_environment
from ...run_folders.run_folder import STATE, WEIGHTS, RunFolder, digest
from ..setup import Fitting, Standing

log = logging.getLogger(__name__)


class Position(BaseModel):
    """Where a run is, and what must be the same for it to go on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    standing: Standing
    seed: int
    environment: Environment
    recipe_sha256: str
    inputs_sha256: str
    checkpoint_sha256: str | None
    """None before the first scoring."""
    scaler: dict[str, int | float] | None
    """How losses are scaled; None but in fp16. Torch takes its counts as whole numbers only."""
    weighting: dict[str, Any] = {}
    """What the method that weighs the tasks holds, beside its parameters."""
    method: dict[str, Any] = {}
    """What the method around the encoder holds, beside its parameters and tensors."""


@dataclass(frozen=True)
class State:
    """What `save_state` wrote."""

    path: Path
    position: Position
    tensors: dict[str, Tensor]

    def pinned(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the seed, threads and precision that the run began with."""
        began = self.position.environment
        same = {"seed": self.position.seed, "threads": began.threads, "precision": began.precision}
        return recipe.model_copy(update=same)

    def restore(self, run: Fitting, optimiser: torch.optim.Optimizer) -> None:
        """Put the run where it was. CannotResume when its data, encoder or device are not those that it began with."""
        at, now = self.position, _environment(run)
        if at.inputs_sha256 != inputs_sha256(run):
            raise CannotResume(
                f"{self.path}: the rows, the encoder or the order of the rows are not those of the run that was interrupted",
                advice="put the data back, or train without --resume",
            )
        if at.environment.device != now.device:
            raise CannotResume(f"{self.path}: the run began on {at.environment.device}, this machine has {now.device}")
        if at.environment.model_copy(update={"processes": now.processes}) != now:
            log.warning("library versions differ from those that the run began with: its numbers will differ slightly")
        restore_parameters(self.tensors, _trained(run), optimiser)
        if at.scaler is not None and run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(at.scaler)
        run.weighting.load_state_dict(at.weighting)
        if run.model.method is not None:
            run.model.method.load_state(at.method, further_tensors(self.tensors))
        run.standing = at.standing.model_copy(deep=True)
        if at.checkpoint_sha256 != _checkpoint_sha256(run.folder):
            # It was written after this state, by a scoring that comes again: none counts until then.
            run.standing.best_step = 0

    def refuse_other_processes(self, run: Fitting) -> None:
        """Raise CannotResume where the run has more or fewer processes than it began with: each has its own random numbers."""
        began, now = self.position.environment.processes, run.accelerator.num_processes
        if began != now:
            raise CannotResume(f"{self.path}: the run began with {began} processes, now there are {now}")


def save_state(run: Fitting, optimiser: torch.optim.Optimizer) -> None:
    """Write the state after the step that was taken last; a crash half-way leaves the one before."""
    method = run.model.method
    position = Position(
        standing=run.standing,
        seed=run.recipe.seed,
        environment=_environment(run),
        recipe_sha256=run.folder.recipe_sha256,
        inputs_sha256=inputs_sha256(run),
        checkpoint_sha256=_checkpoint_sha256(run.folder) if run.standing.best_step else None,
        weighting=run.weighting.state_dict(),
        method=method.state_dict() if method is not None else {},
        scaler=run.accelerator.scaler.state_dict() if run.accelerator.scaler is not None else None,
    )
    held = method.tensors() if method is not None else {}
    write_state_file(run.folder.path / STATE, position.model_dump(), _trained(run), optimiser, held)


def read_state(folder: RunFolder, recipe: Path) -> State | None:
    """Return the last state of an interrupted run, None where none was written yet. CannotResume for another recipe's."""
    path = folder.path / STATE
    if not path.is_file():
        return None
    try:
        found, tensors = read_state_file(path)
        position = Position.model_validate(found)
    except (*UNREADABLE, ValidationError):
        raise CannotResume(f"{path}: not a state of this version") from None
    if digest(recipe) != position.recipe_sha256:
        raise CannotResume(f"{recipe}: not the recipe that {folder.path} was begun with")
    return State(path, position, tensors)


def inputs_sha256(run: Fitting) -> str:
    """Return a digest of what a run reads: its rows, texts without labels, their order, and the encoder."""
    if run.inputs_sha256 is None:
        sums = sha256(run.checkpoint.spec.model_dump_json(exclude_none=True).encode())
        for line in _inputs(run):
            sums.update(line.encode())
        run.inputs_sha256 = sums.hexdigest()
    return run.inputs_sha256


def _inputs(run: Fitting) -> Iterable[str]:
    for data in run.tasks:
        yield json.dumps([data.name, data.labels])
        for example in (*data.train, *data.validation, *data.calibration, *data.outside, *data.choosing):
            reply = () if example.reply is None else (example.reply,)
            yield repr((example.given, example.labels, example.spans, example.soft, *reply))
    yield from run.unlabelled
    yield run.guessed
    yield from (part.taught.sha256 for part in run.train if part.taught is not None)
    yield json.dumps(run.plan)


def _environment(run: Fitting) -> Environment:
    return describe_environment(run.device, precision=run.precision, processes=run.accelerator.num_processes)


def _trained(run: Fitting) -> Iterable[tuple[str, torch.nn.Parameter]]:
    yield from ((name, parameter) for name, parameter in run.model.named_parameters() if parameter.requires_grad)
    yield from ((f"weighting.{name}", parameter) for name, parameter in run.weighting.parameters().items())


def _checkpoint_sha256(folder: RunFolder) -> str | None:
    path = folder.path / WEIGHTS
    return digest(path) if path.is_file() else None
