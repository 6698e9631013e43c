"""What a recipe says of a task."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from ...runtime.model.kinds.registry import KINDS, TaskKind
from ...schemas.manifest import AgentName
from .reading import Frozen, Label, Positive, Reading, Share, Sources


class ThresholdRule(Frozen):
    """Where the thresholds come from: chosen on data, or given."""

    data: Sources | None = None
    """Chosen on these rows; without it on the validation part."""
    max_flagged: Share | None = None
    """The most genuine rows that may be withheld. Without it: the best mean of genuine kept and others caught."""
    accept: Annotated[float, Field(ge=0, le=1)] | None = None
    out_of_scope: Annotated[float, Field(ge=0, le=1)] | None = None
    label: Annotated[float, Field(ge=0, le=1)] | None = None


class OutOfScope(Frozen):
    """The label that means none of the others."""

    label: Label
    learn: bool = True
    """False: no class of its own. Its rows are not trained on; they show where to put the `accept` threshold."""


def _as_out_of_scope(value: Any) -> Any:
    return {"label": value} if isinstance(value, str | int | float) else value


class Task(Reading):
    kind: TaskKind = "classification"
    train: Sources
    validation: Sources | None = None
    validation_share: Share = 0.1
    """Taken from the training rows when there is no `validation`."""
    calibration: Sources | None = None
    """Temperature and thresholds are chosen on these rows; without it on the validation part."""
    group: str | None = None
    """A column whose rows of one value stay together when validation rows are taken: a conversation's, say."""
    test: Sources | None = None
    reports: dict[str, Sources] = Field(default_factory=dict)
    """More sets to report on, by name, beside the test part (messages of your own, say)."""
    labels: list[Label] | None = None
    """All labels in their order; without it the sorted labels of the training rows."""
    out_of_scope: Annotated[OutOfScope | None, BeforeValidator(_as_out_of_scope)] = None
    epochs: Positive | None = None
    loss_weight: Positive = 1.0
    """How much the task's mean loss counts in a step, against the weights of the other tasks."""
    sampling_weight: Positive = 1.0
    label_smoothing: Share | None = None
    thresholds: ThresholdRule = ThresholdRule()
    default_for: list[AgentName] | None = None
    """The agents that answer this task when a request names no tasks; not set: by the agents' own rules."""
    open: bool = False

    @field_validator("labels")
    @classmethod
    def _labels_are_sound(cls, labels: list[str] | None, info: ValidationInfo) -> list[str] | None:
        names = labels or []
        if twice := next((name for at, name in enumerate(names) if name in names[:at]), None):
            raise ValueError(f"label {twice!r} stands twice")
        if not all(name.strip() for name in names):
            raise ValueError("a label is empty")
        if names and (kind := KINDS.find(info.data.get("kind", ""))) is not None:
            kind.check_new_labels(names)
        return labels

    @field_validator("out_of_scope")
    @classmethod
    def _scope_goes_with_labels(cls, scope: OutOfScope | None, info: ValidationInfo) -> OutOfScope | None:
        labels = info.data.get("labels")
        if scope is not None and labels is not None and scope.learn != (scope.label in labels):
            found = (
                "is not among `labels`" if scope.learn else "is among `labels`, but `learn: false` gives it no class"
            )
            raise ValueError(f"label {scope.label!r} {found}")
        return scope

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.out_of_scope and not KINDS.get(self.kind).out_of_scope:
            raise ValueError(f"a task of kind {self.kind} has no out_of_scope label")
        return self
