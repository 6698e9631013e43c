"""What a recipe says of a task."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from ....runtime.model.kinds.registry import KINDS, TaskKind
from ....schemas.manifest import AgentName, GenerationSpec, HeadForm, TaskSpec
from .head import Head, describe_head
from .objective import Objective
from .reading import PAST, Count, Label, Positive, Reading, Share, Source, Sources, Text
from .thresholds import OutOfScope, ThresholdRule
from .unused_keys import VALIDATION_SHARE, find_unused_key, without_key
from .verbaliser import Verbaliser

CONTEXT: Final = 3
DECODER_LAYERS: Final = 3


def _as_out_of_scope(value: Any) -> Any:
    return {"label": value} if isinstance(value, str | int | float) else value


def _as_class_weights(value: Any) -> Any:
    if not isinstance(value, dict | None) and value != "balanced":
        raise ValueError(f"expected `balanced` or a mapping of labels to weights, found {str(value)[:60]!r}")
    return value


ClassWeights = Annotated[
    Literal["balanced"] | dict[Label, Positive] | None,
    BeforeValidator(_as_class_weights),
]


class Task(Reading):
    kind: TaskKind = "classification"
    skip: bool = False
    """Left out as if it did not stand there."""
    train: Sources
    validation: Sources | None = None
    validation_share: Share = VALIDATION_SHARE
    """Taken from the training rows when there is no `validation`."""
    calibration: Sources | None = None
    """Calibration and thresholds are chosen on these rows; without it on the validation part."""
    group: Text | None = None
    """A column whose rows of one value stay together when validation rows are taken: a conversation's, say."""
    test: Sources | None = None
    reports: dict[str, Sources] = Field(default_factory=dict)
    """More sets to report on, by name, beside the test part (messages of your own, say)."""
    labels: Annotated[list[Label], Field(min_length=1)] | None = None
    """All labels in their order; without it the sorted labels of the training rows."""
    out_of_scope: Annotated[OutOfScope | None, BeforeValidator(_as_out_of_scope)] = None
    epochs: Positive | None = None
    loss_weight: Positive = 1.0
    """How much the task's mean loss counts in a step, against the weights of the other tasks."""
    sampling_weight: Positive = 1.0
    label_smoothing: Share | None = None
    class_weights: ClassWeights = None
    """How much the rows of a label count in the loss: `balanced` is in inverse proportion to its rows, with a mean of 1 over
    the rows; of a mapping, labels that it does not name count 1."""
    focal: Annotated[float, Field(gt=0)] | None = None
    """The gamma of focal loss: a row of which the model is sure counts less."""
    thresholds: ThresholdRule = ThresholdRule()
    default_for: list[AgentName] | None = None
    """The agents that answer this task when a request names no tasks; not set: by the agents' own rules."""
    open: bool = False
    head: Head | None = None
    """The form of its head; without it a linear layer on the mean of the last layer (tagging: on each token)."""
    verbaliser: Verbaliser | None = None
    """Classification: a template around the text, and the words whose likeliness at its mask is that of the labels."""
    context: Count | None = None
    """Replies: how many turns are read, the newest included; without it CONTEXT."""
    acts: bool | None = None
    """Replies: whether the acts of the reply are read; without it they are not."""
    mask_values: bool | None = None
    """Replies: whether the turns are read with `{slot}` for the values of slots; without it they are not."""
    mask_names: bool | None = None
    """Replies: whether the turns are read without names and pronouns that tell people apart; without it they are not."""
    layers: Count | None = None
    """Replies: of the decoder; without it DECODER_LAYERS."""
    vocabulary: Count | None = None
    """Replies: at most so many pieces beside those of the model to begin with; without it all that the tokenizer makes of the
    training replies."""

    objective: Objective | None = None
    """Replies: a second stage of training, on what replies are scored by."""

    @field_validator("validation_share")
    @classmethod
    def _holds_rows_back(cls, share: float, info: ValidationInfo) -> float:
        read = not info.data.get("skip") and not (info.context or {}).get(PAST)
        if read and share == 0 and info.data.get("validation") is None:
            raise ValueError(
                "expected a share above 0, or `validation`: some rows are always held back for what is chosen on them"
            )
        return share

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

    _unused: tuple[str, ...] = PrivateAttr(default=())
    """What was left out of the recipe of a finished training: keys without effect, each with the reason."""
    _is_past: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _fits_its_kind(self, info: ValidationInfo) -> Self:
        kind = KINDS.get(self.kind)
        if self.out_of_scope and not kind.out_of_scope:
            raise ValueError(f"a task of kind {self.kind} has no out_of_scope label")
        if self.out_of_scope and self.out_of_scope.by == "distance" and self.head is not None:
            raise ValueError("`out_of_scope` by distance has a head of its own form; leave `head` out")
        if self.verbaliser and (self.head or (self.out_of_scope and self.out_of_scope.by == "distance")):
            other = "head" if self.head else "out_of_scope.by"
            raise ValueError(f"`verbaliser` makes the head of masked words that of the task; leave `{other}` out")
        if kind.generates and (problem := _explain_reply_keys(self)):
            raise ValueError(problem)
        self._is_past = bool((info.context or {}).get(PAST))
        if (unused := find_unused_key(self, kind)) is None:
            return self
        if not self._is_past:
            raise ValueError(unused.problem)
        kept = self.model_validate(without_key(self.model_dump(exclude_unset=True), unused), context=info.context)
        kept._unused = (unused.problem, *kept._unused)
        return kept

    @property
    def is_past(self) -> bool:
        """Whether the task is that of a finished training, whose recipe cannot be changed any more."""
        return self._is_past

    @property
    def unused(self) -> tuple[str, ...]:
        """The keys without effect that were left out, each with the reason; only where the task is past."""
        return self._unused

    @property
    def form_of_head(self) -> HeadForm | None:
        """The form of the head as it stands in a manifest, before anything is learned."""
        if self.out_of_scope is not None and self.out_of_scope.by == "distance":
            return HeadForm(distance=True)
        if self.verbaliser is not None:
            return HeadForm(pooling="mask")
        return self.head.form if self.head is not None else None

    def generation(self, slots: Sequence[str] = ()) -> GenerationSpec | None:
        """Return how a task of replies reads its input, and the sizes of its decoder; None for other kinds."""
        if not KINDS.get(self.kind).generates:
            return None
        return GenerationSpec(
            context=self.context or CONTEXT,
            acts=bool(self.acts),
            mask_values=bool(self.mask_values),
            mask_names=bool(self.mask_names),
            layers=self.layers or DECODER_LAYERS,
            slots=list(slots),
        )

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


def describe_form(spec: TaskSpec) -> dict[str, Any]:
    """Return the keys of a recipe by which rows are read as a task of a model reads them, and its head has its size."""
    if spec.generation is None:
        if spec.head is not None and spec.head.distance:
            return {"labels": list(spec.labels), "out_of_scope": {"label": spec.out_of_scope, "by": "distance"}}
        return {"labels": list(spec.labels)} | (describe_head(spec.head) if spec.head is not None else {})
    return spec.generation.model_dump(include={"context", "acts", "mask_values", "mask_names", "layers"})


def _explain_reply_keys(task: Task) -> str | None:
    """Return what a task of replies sets without effect."""
    if task.labels is not None:
        return f"a task of kind {task.kind} makes its labels, the pieces of replies, of the training rows; leave `labels` out"
    if task.open:
        return f"feedback adds no labels to a task of kind {task.kind}; leave `open` out"
    if any(source.soft for source in task.train):
        return f"a task of kind {task.kind} cannot hold on to earlier replies; leave `soft` out"
    return None
