"""The file that an interrupted loop goes on from: trained parameters, the moments of the optimiser, and a position.

One safetensors file with JSON in its metadata, written aside and renamed: there is always a whole one.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...runtime.errors import SetupError
from ..run_folders.os_errors import as_os_error

MOMENTS: Final = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer", "row_var", "col_var", "variance")
"""What AdamW, SGD and Adafactor hold of a parameter."""
FURTHER: Final = "further/"
NOTHING: Final[Mapping[str, Tensor]] = {}
Named = Iterable[tuple[str, torch.nn.Parameter]]
UNREADABLE: Final = (OSError, SafetensorError, KeyError, TypeError, ValueError)
"""What `read_state_file` raises for a file that is none, besides errors of the caller's own checks."""


class CannotResume(SetupError):
    """An interrupted run does not fit what it is to go on with; it has to begin anew. `reason` is the message without advice."""

    def __init__(self, reason: str, advice: str = "train without --resume") -> None:
        super().__init__(f"{reason}; {advice}")
        self.reason = reason


def write_state_file(
    path: Path,
    position: dict[str, Any],
    trained: Named,
    optimiser: torch.optim.Optimizer,
    further: Mapping[str, Tensor] = NOTHING,
) -> None:
    """Write the state after the step that was taken last, and `further` tensors; a crash half-way leaves the one before."""
    tensors = {f"{FURTHER}{name}": tensor for name, tensor in further.items()}
    for name, parameter in trained:
        tensors[f"model/{name}"] = parameter.detach()
        tensors |= {f"{key}/{name}": value for key, value in optimiser.state[parameter].items()}
    draft = path.with_name(f"{path.name}.part")
    metadata = {"position": json.dumps(position)}
    with as_os_error(draft):
        save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, draft, metadata=metadata)
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    draft.replace(path)


def read_state_file(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return position and tensors of a state. One of UNREADABLE for a file that is none."""
    with safe_open(path, framework="pt") as file:
        position = json.loads(file.metadata()["position"])
        return position, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)


def further_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the `further` tensors of a state."""
    return {name.removeprefix(FURTHER): _aligned(each) for name, each in tensors.items() if name.startswith(FURTHER)}


def restore_parameters(tensors: dict[str, Tensor], trained: Named, optimiser: torch.optim.Optimizer) -> None:
    """Put parameters and moments where they were."""
    with torch.no_grad():
        for name, parameter in trained:
            parameter.copy_(tensors[f"model/{name}"])
            optimiser.state[parameter] = {
                key: _aligned(tensors[f"{key}/{name}"], parameter.device)
                for key in MOMENTS
                if f"{key}/{name}" in tensors
            }


def _aligned(kept: Tensor, device: torch.device | str = "cpu") -> Tensor:
    # A copy in memory of torch's own alignment: results of its kernels may depend on it.
    return torch.empty_like(kept, device=device).copy_(kept)
