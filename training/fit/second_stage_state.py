"""The state of a second stage under way, from which `--resume` goes on: the decoder, its optimiser and the step."""

import json
import os
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..run_folders.run_folder import SECOND_STAGE, WEIGHTS, digest
from .resume import MOMENTS, inputs_sha256
from .setup import Fitting


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
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.trained().items():
        tensors[f"model/{name}"] = parameter.detach()
        tensors |= {f"{key}/{name}": value for key, value in state.optimiser.state[parameter].items()}
    folder = state.run.folder.path
    draft = folder / f"{SECOND_STAGE}.part"
    metadata = {"position": state.position(step).model_dump_json()}
    save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, draft, metadata=metadata)
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    draft.replace(folder / SECOND_STAGE)


def read_stage(state: StageState) -> int:
    """Put decoder and optimiser where a stage was interrupted, and return its last step; 0 where none of this task was."""
    try:
        with safe_open(state.run.folder.path / SECOND_STAGE, framework="pt") as file:
            position = _Position.model_validate(json.loads(file.metadata()["position"]))
            if position != state.position(position.step):
                return 0
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, ValidationError):
        return 0
    with torch.no_grad():
        for name, parameter in state.trained().items():
            parameter.copy_(tensors[f"model/{name}"])
            kept = {key: tensors[f"{key}/{name}"] for key in MOMENTS if f"{key}/{name}" in tensors}
            # Copies in memory of torch's own alignment: results of its kernels may depend on it.
            moments = {
                key: torch.empty_like(value, device=parameter.device).copy_(value) for key, value in kept.items()
            }
            state.optimiser.state[parameter] = moments
    return position.step
