"""What ends a training from outside, as one line: too little memory, and a disk that takes no more."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from ...runtime.errors import NO_ROOM, SetupError

LOWER: Final = "lower batch_size or max_tokens, or raise accumulate"


@contextmanager
def in_one_line(lower: str = LOWER) -> Iterator[None]:
    """Raise SetupError where memory or disk do not suffice. `lower` says what takes less memory."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise SetupError(
            f"the disk is full: {error}; what was saved before is whole: make room, and give the same command again, with --resume "
            "if it has that"
        ) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SetupError(f"out of memory: {lower} ({shown(error)})") from None


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory was short, on the device or of the process: torch says the second in words alone."""
    said = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in said or "out of memory" in said
    )


def shown(error: Exception) -> str:
    """Return what an error says, in a line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
