"""Declares how texts above the model's limit are split into windows."""

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
