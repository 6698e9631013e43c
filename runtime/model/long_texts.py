"""What becomes of texts that are longer than the model reads at once: as agents declare it."""

from dataclasses import dataclass
from typing import Final, Literal

Merge = Literal["max", "mean"]

MAX_WINDOWS: Final = 64


@dataclass(frozen=True, slots=True)
class Windows:
    """How the long texts of a topic are read. Equal ones may share a forward pass and a decoding."""

    most: int = MAX_WINDOWS
    """Windows of one text; what lies behind them is not read, and the answer says `truncated`."""
    tokens: int | None = None
    """Of a window; None: the model's limit. Short windows find more of a model that has learned from short texts, and
    take more of them for a text."""
    overlap: int | None = None
    """Tokens that neighbours share; None: a quarter of a window. At most half of it."""
    merge: Merge = "max"
    """How the scores of the windows become the text's."""
