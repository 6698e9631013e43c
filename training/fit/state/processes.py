"""Several processes that train one network: each holds all of it, and after every step the same.

Gradients are added up by one sum of all of them after the last part. The wrapper that torch has for this
(DistributedDataParallel) wants one forward pass a step and some rows in every process; a joint step has several passes, and
the last step of a run may have fewer rows than there are processes.
"""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor

from ....runtime.errors import SetupError
from ..setup import Fitting
from .resume import inputs_sha256


def begin_together(run: Fitting) -> None:
    """Give every process the parameters of the first one. SetupError where a process reads other rows, or goes on elsewhere."""
    if run.accelerator.num_processes == 1:
        return
    process = f"process {run.accelerator.process_index}"
    own = torch.tensor([*bytes.fromhex(inputs_sha256(run)), run.standing.step], device=run.device)
    first = broadcast(own.clone())
    if not torch.equal(first[:-1], own[:-1]):
        raise SetupError(
            f"{process} reads other rows or another encoder than process 0; every process needs the same data folder"
        )
    if first[-1] != own[-1]:
        raise SetupError(
            f"{process} goes on from step {int(own[-1])}, process 0 from step {int(first[-1])}; every process needs the same "
            "run folder"
        )
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.copy_(broadcast(parameter.detach().clone()))


def end_together(accelerator: Accelerator) -> None:
    """Wait until the first process has written everything, and leave the group."""
    if accelerator.num_processes > 1:
        share_number(accelerator, 0)
        accelerator.state.destroy_process_group()


def sum_tensors(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes."""
    return tensor if accelerator.num_processes == 1 else accelerator.reduce(tensor, "sum")


def sum_gradients(accelerator: Accelerator, trained: Sequence[torch.nn.Parameter], figures: Tensor) -> Tensor:
    """Put the sum over the processes into every gradient, and return that of `figures` [N].

    A parameter that has a gradient in no process has none afterwards: the optimiser leaves it alone.
    """
    if accelerator.num_processes == 1:
        return figures
    has_one = torch.tensor([float(p.grad is not None) for p in trained], device=figures.device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    sizes = [p.numel() for p in trained]
    everything = torch.cat([*(gradient.flatten() for gradient in gradients), has_one, figures])
    *summed, has_one, figures = sum_tensors(accelerator, everything).split([*sizes, len(trained), len(figures)])
    for parameter, gradient, exists in zip(trained, summed, has_one.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) if exists else None
    return figures


def share_number(accelerator: Accelerator, number: int) -> int:
    """Return the number that the first process has."""
    if accelerator.num_processes == 1:
        return number
    return int(broadcast(torch.tensor(number, device=accelerator.device)))


def scale_of(accelerator: Accelerator) -> float:
    """Return what losses are multiplied by, so that gradients of fp16 do not vanish; 1 in fp32 and bf16."""
    return float(accelerator.scaler.get_scale()) if accelerator.scaler is not None else 1.0
