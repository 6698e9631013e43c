"""What ends a training from outside, as one line: too little memory, and a disk that takes no more."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch

from ...runtime.errors import NO_ROOM, SetupError, describe_no_room

LOWER: Final = "lower batch_size or max_tokens, or raise accumulate"
AGAIN: Final = (
    "what was saved before is whole: make room, and give the same command again, with --resume if it has that"
)
NAMED_ROWS: Final = 5
"""An error names so many rows of a step."""


class OutOfMemory(SetupError):
    """Memory does not suffice for `what` was run; `lower` says what takes less, `found` what was said of it."""

    def __init__(self, what: str, lower: str, found: str) -> None:
        super().__init__(f"{what}; {lower}: {found}")
        self.what, self.found = what, found


@contextmanager
def in_one_line(lower: str = LOWER) -> Iterator[None]:
    """Raise SetupError where memory or disk do not suffice. `lower` says what takes less memory."""
    with full_disk_in_one_line(AGAIN), memory_of("", lower):
        yield


@contextmanager
def full_disk_in_one_line(then: str) -> Iterator[None]:
    """Raise SetupError where the disk takes no more. `then` says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise SetupError(f"{describe_no_room(error)}; {then}") from None


@contextmanager
def memory_of_step(describe: Callable[[], tuple[str, str]]) -> Iterator[None]:
    """Raise OutOfMemory with what a step reads, and what to lower, as `describe` says them, where memory does not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(*describe(), shown(error)) from None


@contextmanager
def memory_of(part: str, lower: str = "lower max_tokens") -> Iterator[None]:
    """Raise OutOfMemory with the name of what is run, and what to lower, where memory does not suffice."""
    with memory_of_step(lambda: (f"{part}: out of memory" if part else "out of memory", lower)):
        yield


def name_some(places: Sequence[str], what: str) -> str:
    """Return the first few places of a step, and how many more of `what` there are."""
    more = len(places) - NAMED_ROWS
    return ", ".join(places[:NAMED_ROWS]) + (f" and {more} more {what}" if more > 0 else "")


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory was short, on the device or of the process: torch says the second in words alone."""
    said = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in said or "out of memory" in said
    )


def shown(error: Exception) -> str:
    """Return what an error says, in a line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
