"""The state of a second stage under way, from which `--resume` goes on: the decoder, its optimiser and the step."""

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from ...compute.state_file import UNREADABLE, read_state_file, restore_parameters, write_state_file
from ...run_folders.run_folder import SECOND_STAGE, WEIGHTS, digest
from ..setup import Fitting
from ..state.resume import inputs_sha256


class _Position(BaseModel):
    """Where a stage is, and what it must go on with; a state of anything else is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    step: int
    inputs_sha256: str
    checkpoint_sha256: str


@dataclass(frozen=True)
class StageState:
    """What is kept of a stage."""

    run: Fitting
    task: str
    decoder: nn.Module
    optimiser: torch.optim.Optimizer

    def position(self, step: int) -> _Position:
        checkpoint = digest(self.run.folder.path / WEIGHTS)
        return _Position(task=self.task, step=step, inputs_sha256=inputs_sha256(self.run), checkpoint_sha256=checkpoint)

    def trained(self) -> dict[str, nn.Parameter]:
        return {name: each for name, each in self.decoder.named_parameters() if each.requires_grad}


def save_stage(state: StageState, step: int) -> None:
    """Write the state after a step; a crash half-way leaves the one before."""
    path = state.run.folder.path / SECOND_STAGE
    write_state_file(path, state.position(step).model_dump(), state.trained().items(), state.optimiser)


def read_stage(state: StageState) -> int:
    """Put decoder and optimiser where a stage was interrupted, and return its last step; 0 where none of this task was."""
    try:
        found, tensors = read_state_file(state.run.folder.path / SECOND_STAGE)
        position = _Position.model_validate(found)
    except (*UNREADABLE, ValidationError):
        return 0
    if position != state.position(position.step):
        return 0
    restore_parameters(tensors, state.trained().items(), state.optimiser)
    return position.step
