"""What a recipe says of thresholds, and of the label that they keep apart."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .reading import Frozen, Label, Share, Sources


class ThresholdRule(Frozen):
    """Where the thresholds come from: chosen on data, or given."""

    data: Sources | None = None
    """Chosen on these rows; without it on the validation part."""
    max_flagged: Share | None = None
    """The most genuine rows that may be withheld; for several labels, of rows without any that may get one. Without it: the
    best mean of genuine kept and others caught; for several labels, the best micro-F1."""
    accept: Annotated[float, Field(ge=0, le=1)] | None = None
    out_of_scope: Annotated[float, Field(ge=0, le=1)] | None = None
    label: Annotated[float, Field(ge=0, le=1)] | None = None


class OutOfScope(Frozen):
    """The label that means none of the others."""

    label: Label
    learn: bool = True
    """False: no class of its own. Its rows are not trained on; they show where to put the `accept` threshold."""
    by: Literal["class", "distance"] = "class"
    """`distance`: a text is out of scope that lies far from the rows of all other labels. Rows of this label are not needed, and
    not trained on; where there are some they choose the threshold."""

    @model_validator(mode="after")
    def _has_a_class(self) -> Self:
        if self.by == "distance" and not self.learn:
            raise ValueError("`by: distance` makes a class, and `learn: false` has none; leave one of them out")
        return self

    @property
    def is_taught(self) -> bool:
        """Whether its rows are trained on."""
        return self.learn and self.by == "class"
