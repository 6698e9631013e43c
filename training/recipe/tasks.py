"""What a recipe says of a task."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from ...runtime.model.kinds.registry import KINDS, TaskKind
from ...schemas.manifest import AgentName
from .reading import Label, Positive, Reading, Share, Source, Sources
from .thresholds import OutOfScope, ThresholdRule
from .unused_keys import explain_unused_key

VALIDATION_SHARE: Final = 0.1


def _as_out_of_scope(value: Any) -> Any:
    return {"label": value} if isinstance(value, str | int | float) else value


class Task(Reading):
    kind: TaskKind = "classification"
    train: Sources
    validation: Sources | None = None
    validation_share: Share = VALIDATION_SHARE
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
        kind = KINDS.get(self.kind)
        if self.out_of_scope and not kind.out_of_scope:
            raise ValueError(f"a task of kind {self.kind} has no out_of_scope label")
        if problem := explain_unused_key(self, kind):
            raise ValueError(problem)
        if self.validation is not None and self.validation_share != VALIDATION_SHARE:
            raise ValueError("`validation_share` has no effect beside `validation`; leave one of them out")
        return self

    def parts(self) -> Iterator[tuple[str, list[Source]]]:
        """Yield name and sources of each part that has some; `reports` are parts, too."""
        parts = {
            "train": self.train,
            "validation": self.validation,
            "calibration": self.calibration,
            "thresholds": self.thresholds.data,
            "test": self.test,
        }
        yield from ((name, sources) for name, sources in (*parts.items(), *self.reports.items()) if sources)
