"""What a recipe says of models whose answers are learned beside the labels."""

from collections.abc import Collection
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from ....schemas.manifest import Name
from .reading import Frozen

Part = Annotated[float, Field(ge=0, le=1)]


def _as_two(value: Any) -> Any:
    """Read a number as a share that does not change."""
    return [value, value] if isinstance(value, int | float) and not isinstance(value, bool) else value


GoldShare = Annotated[tuple[Part, Part], BeforeValidator(_as_two)]
"""How much of a row's target is its label, at the first step and at the last one; the rest is the teacher's answer."""


class Teachers(Frozen):
    """Knowledge distillation with teacher annealing (BAM: Clark et al. 2019)."""

    models: Annotated[str | dict[Name, str], Field(min_length=1)]
    """By task the folder of a model or a run of ours; or one folder for every task whose labels can be taught."""
    gold: GoldShare = (0.0, 1.0)
    temperature: Annotated[float, Field(ge=1)] = 1.0
    """Of both answers while they are compared (Hinton et al. 2015), but for tasks of several labels."""

    @model_validator(mode="after")
    def _teaches_something(self) -> Self:
        if self.gold == (1.0, 1.0):
            raise ValueError("`gold: 1` leaves nothing for teachers to teach; leave `teachers` out")
        return self

    @property
    def folders(self) -> list[str]:
        """Where the models lie."""
        return [self.models] if isinstance(self.models, str) else [*self.models.values()]

    def teaches(self, task: str) -> bool:
        """Return whether the task has a teacher, if its kind can have one."""
        return isinstance(self.models, str) or task in self.models

    def gold_at(self, before: int, step: int, steps: int) -> float:
        """Return the share of the label before a step is taken, of 0 to `steps` - 1 of a phase: linear in the first phase that
        teaches the task, then as at its end; of a single step as at the beginning. So many phases taught it `before`.
        """
        first, last = self.gold
        if before or step >= max(1, steps - 1):
            return last
        return first + (last - first) * step / max(1, steps - 1)


def leave_out(teachers: Teachers | None, tasks: Collection[str]) -> Teachers | None:
    """Return the teachers without those of these tasks; None where none is left."""
    if teachers is None or isinstance(teachers.models, str):
        return teachers
    kept = {name: folder for name, folder in teachers.models.items() if name not in tasks}
    return teachers.model_copy(update={"models": kept}) if kept else None


def _as_teachers(value: Any) -> Any:
    """Read a folder, or a folder for each task, as a mapping with the models."""
    if isinstance(value, str):
        return {"models": value}
    is_short = isinstance(value, dict) and bool(value) and "models" not in value
    return {"models": value} if is_short and all(isinstance(each, str) for each in value.values()) else value


TeachersKey = Annotated[Teachers | None, BeforeValidator(_as_teachers)]
