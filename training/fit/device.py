"""What the machine offers: bf16, and how many threads are worth taking."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch

from ..recipe.recipe import Recipe


def wants_bf16(recipe: Recipe) -> bool:
    """True when asked for, or when left to us and the device computes in bf16 itself."""
    if recipe.precision != "auto":
        return recipe.precision == "bf16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_has_bf16()


def cpu_has_bf16(flags: Iterable[str] = ("avx512_bf16", "amx_bf16", "bf16")) -> bool:
    """True when the CPU multiplies bf16 in hardware; without it autocast is slower than fp32."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    words = next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())
    return bool(words & set(flags))


def free_threads() -> int:
    """All cores, or one when neighbours keep more than half of them busy: threads that wait for each other lose more."""
    cores = os.cpu_count() or 1
    return 1 if os.getloadavg()[0] > cores / 2 else cores
