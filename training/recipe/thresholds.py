"""What a recipe says of thresholds, and of the label that they keep apart."""

from typing import Annotated

from pydantic import Field

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
