"""What a recipe says of the stage `smaller`: a trained model is distilled into one of fewer layers, or narrower ones."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .reading import Count, Frozen
from .teachers import GoldShare, Teachers


class Smaller(Frozen):
    """The student begins as chosen layers of the teacher (Sanh et al. 2019; Sajjad et al. 2020) and learns its answers."""

    teacher: Annotated[str, Field(min_length=1)]
    """The folder of a model, a delta or a run of ours with every task of the recipe."""
    layers: Count | None = None
    """How many of the teacher's layers; all without it."""
    intermediate_size: Count | None = None
    """How many neurons of the feed-forward part of each layer, those of greatest weight; all without it."""
    keep: Literal["even", "ends", "lowest"] = "even"
    """Which layers of the teacher: evenly spaced from the first to the last, the first and the last ones without the middle, or
    the lowest."""
    gold: GoldShare = (0.5, 0.5)
    temperature: Annotated[float, Field(ge=1)] = 2.0
    """As those of `teachers`."""

    @model_validator(mode="after")
    def _teaches_something(self) -> Self:
        if self.gold == (1.0, 1.0):
            raise ValueError("`gold: 1` leaves nothing for the teacher to teach; lower `gold`, or leave `smaller` out")
        if self.layers is None and self.intermediate_size is None:
            raise ValueError("is as large as its teacher; give `layers` or `intermediate_size`")
        if self.layers is None and "keep" in self.model_fields_set:
            raise ValueError("`keep` says which layers stay, and all of them do without `layers`; leave it out")
        return self

    def as_teachers(self) -> Teachers:
        """Return the teacher as that of every task whose answers can be learned."""
        return Teachers(models=self.teacher, gold=self.gold, temperature=self.temperature)
