"""Seeds: numbers that every generator of the trainer takes."""

from typing import Annotated, Final

from pydantic import AfterValidator, ValidationInfo

from .reading import PAST

MOST_SEED: Final = 2**63 - 1
"""torch takes no more, and numpy nothing below 0."""


def _refuse_others(seed: int, info: ValidationInfo) -> int:
    """Raise ValueError for a number that is no seed. Of a finished training any number is one: torch takes those below 0."""
    if not 0 <= seed <= MOST_SEED and not (info.context or {}).get(PAST):
        raise ValueError(f"expected a whole number from 0 to {MOST_SEED}, found {str(seed)[:60]}")
    return seed


Seed = Annotated[int, AfterValidator(_refuse_others)]
