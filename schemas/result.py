"""The result of an agent: one output per task, each with its `kind`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    WithJsonSchema,
    model_validator,
)

ALTERNATIVES: Final = 3


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC it is outside the years 1 to 9999") from None


UtcTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""RFC 3339 on the wire, always in UTC."""

Score = Annotated[float, Field(ge=0.0, le=1.0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ScoredLabel(_Frozen):
    label: str
    score: Score


class ClassificationOutput(_Frozen):
    """One label, or an abstention: then `label` is null, `reason` is set, and `score` is the winner's."""

    kind: Literal["classification"] = "classification"
    label: str | None
    score: Score
    alternatives: Annotated[list[ScoredLabel], Field(max_length=ALTERNATIVES)]
    """The top three, the winner first."""
    abstained: bool = False
    reason: Literal["below_threshold", "out_of_scope"] | None = None

    @model_validator(mode="after")
    def _an_abstention_has_a_reason_and_no_label(self) -> Self:
        has_label, has_reason = self.label is not None, self.reason is not None
        if has_label == self.abstained or has_reason != self.abstained:
            raise ValueError("abstained needs a reason and no label, an answer needs a label and no reason")
        return self


class MultiLabelOutput(_Frozen):
    """The labels with a score of at least their threshold, highest first."""

    kind: Literal["multi_label"] = "multi_label"
    labels: list[ScoredLabel]


class Span(_Frozen):
    """A tagged part of the request's text. Offsets count Unicode code points, `end` is exclusive."""

    label: str
    text: str
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=1)]
    score: Score

    @model_validator(mode="after")
    def _offsets_fit_the_text(self) -> Self:
        if self.end - self.start != len(self.text) or not self.text:
            raise ValueError(f"a span of {len(self.text)} code points cannot reach from {self.start} to {self.end}")
        return self


class TaggingOutput(_Frozen):
    kind: Literal["tagging"] = "tagging"
    spans: list[Span]


class GenerationOutput(_Frozen):
    """A reply that the model words itself, with slots as `{NAME}`."""

    kind: Literal["generation"] = "generation"
    text: str
    score: Score
    """The geometric mean of the probabilities of its pieces."""
    finish: Literal["end", "length"]
    """`length`: it was cut at the maximum number of pieces."""


OWN_KINDS: Final = ("classification", "multi_label", "tagging", "generation")
_OTHER: Final = "other"


def _refuse_own(kind: str) -> str:
    if kind in OWN_KINDS:
        raise ValueError(f"an output of kind {kind} has a form of its own")
    return kind


class OtherOutput(_Frozen):
    """An answer of a kind that another package adds: `kind`, and fields of its own."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    kind: Annotated[
        str,
        AfterValidator(_refuse_own),
        WithJsonSchema({"type": "string", "title": "Kind", "not": {"enum": list(OWN_KINDS)}}),
    ]


def _form_of(output: Any) -> str | None:
    """Return the tag of an output's form; None, which refuses it, for what has no `kind`."""
    kind = output.get("kind") if isinstance(output, Mapping) else getattr(output, "kind", None)
    return kind if kind in OWN_KINDS else _OTHER if isinstance(kind, str) else None


Output = Annotated[
    Annotated[ClassificationOutput, Tag("classification")]
    | Annotated[MultiLabelOutput, Tag("multi_label")]
    | Annotated[TaggingOutput, Tag("tagging")]
    | Annotated[GenerationOutput, Tag("generation")]
    | Annotated[OtherOutput, Tag(_OTHER)],
    Discriminator(_form_of),
]
"""A reader who does not know a kind still reads the result."""


Variant = Literal["current", "candidate"]


class ModelRef(_Frozen):
    name: str
    version: int
    variant: Variant = Field(default="current", exclude_if=lambda variant: variant == "current")
    """`candidate`: a version beside the current one, which answers a share of the requests."""


class Source(_Frozen):
    """The coordinates of the answered record; `timestamp` in milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Result(_Frozen):
    """One agent's answer to one request. It has no text: routing publishes the original value."""

    request_id: str
    prediction_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    agent: str
    status: Literal["ok", "expired", "partial"] = "ok"
    """`expired`: the request was too old to be predicted; `outputs` is empty."""
    model: ModelRef
    source: Source
    outputs: dict[str, Output]
    truncated: bool = False
    pass_ratio: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = Field(
        default=None, exclude_if=lambda ratio: ratio is None
    )
    """While a candidate answers a share: device time of the pass that answered it, divided by the time calibrated for a pass of
    its size, each at least 1 ms. None where it was not measured.
    """
    candidate_failed: bool = Field(default=False, exclude_if=lambda failed: not failed)
    """Whether a candidate failed on the request before the current version answered it."""
    metadata: dict[str, str] = {}
    time: UtcTime
