"""What evaluation hands to a kind, and what it gets back."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from ..data.example import Example
from .figures.findings import Findings
from .figures.intervals import Interval


@dataclass(frozen=True, slots=True)
class Answer:
    """One text as the exported model answered it."""

    example: Example
    encoding: Encoding
    output: dict[str, Any]
    """The contract's output, thresholds applied."""
    logits: NDArray[Any]
    """[C], for tagging [S, C]."""
    served: Mapping[str, Any] | None = None
    """Of kinds that generate, where it was asked for: the output without the pieces that are forbidden in service."""

    def without_tokens(self) -> "Answer":
        """Return the answer without what grows with the length of the text beside it: encoding, and logits by token."""
        return replace(self, encoding=_NO_ENCODING, logits=self.logits if self.logits.ndim == 1 else _NO_LOGITS)


_NO_ENCODING: Final = Encoding()
_NO_LOGITS: Final[NDArray[Any]] = np.empty((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class Score:
    """Figures by name, and the table of all labels as text.

    Shares lie between 0 and 1. None is a figure that does not exist for these rows: an F1 where nothing was to be found and
    nothing was, say.
    """

    figures: dict[str, float | None]
    table: str
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """95 % intervals of figures, where the kind computes them with the figures; `findings` has those of others."""
    findings: Findings | None = None
    """What else was found; None where nobody looked."""

    def interval(self, figure: str) -> Interval | None:
        """Return the 95 % interval of a figure; None where it has none."""
        found = self.findings.intervals if self.findings is not None else {}
        return self.intervals.get(figure) or found.get(figure)
