"""What a recipe says of self-training: texts without labels, and which guesses are learned from."""

from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from ....schemas.manifest import Name
from .pretraining import TextSource
from .reading import Count, Frozen, Positive

SELF_TRAINING: Final = "self_training"
"""The name of the phase."""


def _as_sources(value: object) -> object:
    items = value if isinstance(value, list) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in items]


class SelfTraining(Frozen):
    """A last phase, in which a classification also learns what it guessed of texts without labels."""

    texts: Annotated[list[TextSource], BeforeValidator(_as_sources), Field(min_length=1)]
    task: Name | None = None
    """Without it the only classification."""
    precision: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Of the validation rows whose score reaches the threshold so many are right."""
    per_label: Count = 20
    """Of each label that is guessed at most so many texts are learned, those first whose guess is the surest."""
    weight: Positive = 1.0
    """How much such a text counts against a row."""
    epochs: Positive | None = None
    """Passes over rows and texts in the phase; without it as in the recipe."""
