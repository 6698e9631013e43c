"""All that `report.md` says of the training, in its order."""

from collections.abc import Callable, Sequence
from typing import Final

from .made import Made
from .method import describe_method
from .page import Say, contained
from .part import Part
from .phases import describe_phases
from .rows import describe_rows
from .words import describe_words

PARTS: Final[Sequence[Callable[[Made], Part | None]]] = (
    describe_phases,
    describe_rows,
    describe_method,
    describe_words,
)


def describe_training(made: Made, say: Say) -> list[Part]:
    """Return the parts that there are. One that raises is left out, and `say` is called with one line about the error."""
    found: list[Part] = []
    for describe in PARTS:
        with contained(f"report.md: {describe.__name__} failed", say):
            found += [part] if (part := describe(made)) is not None else []
    return found
