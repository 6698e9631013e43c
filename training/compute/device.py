"""What a run computes on: device, precision, processes, threads. `accelerate` opens them."""

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Final

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, GradientAccumulationPlugin, InitProcessGroupKwargs, LoggerType

from ...runtime.errors import SetupError
from ..recipe.recipe import Recipe
from ..run_folders.run_folder import TENSORBOARD, RunFolder

MOST_WAITING: Final = timedelta(minutes=30)
"""A process that waits longer for the others ends with an error. The others wait while the first one scores."""
MIXED_PRECISION: Final = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
SUPPORTED: Final = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def open_accelerator(recipe: Recipe, folder: RunFolder) -> Accelerator:
    """Open the device of this process, the group of the processes that `torchrun` started, and the recipe's trackers.

    SetupError for what this machine does not have.
    """
    refuse_unsupported(recipe)
    if not torch.distributed.is_initialized():
        # The state outlives a run, and its precision cannot be changed: the next run in this process may have another.
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision=MIXED_PRECISION[precision_of(recipe)],
        cpu=not torch.cuda.is_available(),
        log_with=list(recipe.trackers) or None,
        project_dir=folder.path / TENSORBOARD,
        # The parts of a step are sums over its rows, so nothing is divided by their number.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=MOST_WAITING)],
    )
    if accelerator.distributed_type not in SUPPORTED:
        raise SetupError(f"training cannot be distributed by {accelerator.distributed_type}; start it with torchrun")
    torch.set_num_threads(recipe.threads or free_threads())
    return accelerator


def refuse_unsupported(recipe: Recipe) -> None:
    """Raise SetupError for a precision or a tracker that this machine does not have."""
    if recipe.precision == "fp16" and not torch.cuda.is_available():
        raise recipe.refusal(
            ("precision",), "fp16 needs a CUDA GPU, this machine has none; expected auto, bf16 or fp32"
        )
    known = [str(each) for each in LoggerType if each != LoggerType.ALL]
    for name in recipe.trackers:
        if name not in known:
            raise recipe.refusal(("trackers",), f"{name!r} is not known; expected some of {', '.join(known)}")
        if name not in [str(each) for each in get_available_trackers()]:
            raise recipe.refusal(("trackers",), f"{name} is not installed")


def precision_of(recipe: Recipe) -> str:
    """Return `fp32`, `bf16` or `fp16`; `auto` is bf16 where the device computes in it, else fp32."""
    if recipe.precision != "auto":
        return recipe.precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if cpu_has_bf16() else "fp32"


def cpu_has_bf16(flags: Iterable[str] = ("avx512_bf16", "amx_bf16", "bf16")) -> bool:
    """True when the CPU multiplies bf16 in hardware; without it autocast is slower than fp32."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    words = next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())
    return bool(words & set(flags))


def free_threads() -> int:
    """All cores, divided among the processes on this machine, or one when neighbours keep more than half of them busy:
    threads that wait for each other lose more.
    """
    cores = os.cpu_count() or 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return 1 if os.getloadavg()[0] > cores / 2 else max(1, cores // processes)


def is_first_process() -> bool:
    """True in the process that prints and writes; `torchrun` numbers the processes."""
    return os.environ.get("RANK", "0") == "0"
