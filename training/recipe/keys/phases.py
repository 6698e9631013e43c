"""What a recipe says of a phase of the training: its tasks, its passes, its optimiser, and what stays as it is."""

from collections.abc import Collection, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from ....schemas.manifest import Name
from .optimiser import FreezeKey, Optimiser
from .reading import Count, Frozen, Positive, Share


class Phase(Frozen):
    """Begins from the best checkpoint of the phase before. What it leaves out is as in the recipe."""

    name: Name
    tasks: Annotated[list[Name], Field(min_length=1)] | None = None
    """Those that learn; without it all. The others are held to their answers."""
    epochs: Positive | None = None
    """Passes over the rows of its tasks; without it and `steps` as in the recipe."""
    steps: Count | None = None
    """Instead of epochs."""
    evaluations: Count | None = None
    patience: Count | None = None
    """End the phase after so many evaluations without a better mean of its tasks."""
    optimiser: Optimiser | None = None
    """What differs from the recipe's."""
    dropout: Share | None = None
    freeze: FreezeKey = None
    held_rows: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Rows of the other tasks that are read with what the model answered when the phase began as their target, for each row
    of the phase's own tasks; 0: the others are left to change."""

    @model_validator(mode="after")
    def _either_steps_or_epochs(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("`steps` and `epochs` stand together; expected one of them")
        return self


def leave_out(phases: Sequence[Phase], tasks: Collection[str]) -> tuple[Phase, ...]:
    """Return the phases without these tasks; one that taught no others is left out."""
    named = ((phase, [name for name in phase.tasks or () if name not in tasks]) for phase in phases)
    return tuple(
        phase.model_copy(update={"tasks": kept or None}) for phase, kept in named if kept or phase.tasks is None
    )
