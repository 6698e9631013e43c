"""What evaluation hands to a kind, and what it gets back."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from tokenizers import Encoding

from ..data.example import Example


@dataclass(frozen=True, slots=True)
class Answer:
    """One text as the exported model answered it."""

    example: Example
    encoding: Encoding
    output: dict[str, Any]
    """The contract's output, thresholds applied."""
    logits: NDArray[Any]
    """[C], for tagging [S, C]."""


@dataclass(frozen=True, slots=True)
class Score:
    """Figures by name, and the table of all labels as text.

    Shares lie between 0 and 1. None is a figure that does not exist for these rows: an F1 where nothing was to be found and
    nothing was, say.
    """

    figures: dict[str, float | None]
    table: str
