"""Classifies errors of a forward pass: caused by the device, or by the texts of the batch."""

import re
from typing import Final

from ..errors import DeviceFailed, ModelFailed

OUT_OF_MEMORY: Final = (
    "bad_alloc",
    "bad allocation",
    "allocate memory",
    "out of memory",
    "ALLOC_FAILED",
    "is smaller than requested bytes",
)
"""Libraries have no class for this error: it is recognised by these words."""

# After one of these, every CUDA call of the process fails with the same error; only a new process can continue.
# The codes are those of `cudaError_t`: ECC, NVLink, illegal address, launch timeout, destroyed context, assert,
# and the hardware exceptions.
_STICKY_CODES: Final = frozenset({214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719})
_CUDA_CODE: Final = re.compile(r"CUDA (?:failure|error) (\d+)")
_STICKY_WORDS: Final = (
    "illegal memory access",
    "device-side assert",
    "uncorrectable ECC",
    "unspecified launch failure",
)
_LONGEST: Final = 300


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is about memory, of the host or of the device."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def is_sticky(error: BaseException) -> bool:
    """Return whether the process can never use its device again."""
    message = str(error)
    code = _CUDA_CODE.search(message)
    return (code is not None and int(code[1]) in _STICKY_CODES) or any(words in message for words in _STICKY_WORDS)


def model_error(error: BaseException, place: str) -> ModelFailed:
    """Return an error of a forward pass as ModelFailed, or as DeviceFailed if the device caused it."""
    if isinstance(error, ModelFailed):
        return error
    # The first line names the operator; the rest is a stack of the library.
    first = (str(error).strip().splitlines() or [""])[0][:_LONGEST]
    message = f"{place}: {first or type(error).__name__}"
    failed = ModelFailed(message)
    if is_sticky(error):
        failed = DeviceFailed(message, lost=True)
    elif is_out_of_memory(error):
        failed = DeviceFailed(message)
    failed.__cause__ = error
    return failed
