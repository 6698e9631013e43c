"""What evaluation hands to a kind, and what it gets back."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from tokenizers import Encoding

from .data.example import Example


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
    """Figures by name, shares between 0 and 1, and the table of all labels as text."""

    figures: dict[str, float]
    table: str
