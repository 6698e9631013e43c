"""Declares how texts above the model's limit are split into windows, and how they lose their oldest lines."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Merge = Literal["max", "mean"]

MAX_WINDOWS: Final = 64


@dataclass(frozen=True, slots=True)
class Windows:
    """How long texts of a topic are read. Topics with equal windows may share a forward pass and a decoding."""

    most: int = MAX_WINDOWS
    """Maximum number of windows of a text; the rest is not read, and the answer has `truncated` set."""
    tokens: int | None = None
    """Tokens of a window; None: the model's limit. With a model trained on short texts, shorter windows find more."""
    overlap: int | None = None
    """Tokens shared by adjacent windows; None: a quarter of a window. At most half of one."""
    merge: Merge = "max"
    """How the scores of the windows are combined."""


def drop_older_lines(text: str, fits: Callable[[str], bool]) -> str:
    """Return the last lines of a text, as many as fit; the last one also where it does not fit alone."""
    lines = text.split("\n")
    first = bisect_left(range(len(lines) - 1), True, key=lambda number: fits("\n".join(lines[number:])))
    return "\n".join(lines[first:])
