"""What an agent answers: one output per task, each with its own `kind`."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Score = Annotated[float, Field(ge=0.0, le=1.0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ScoredLabel(_Frozen):
    label: str
    score: Score


class ClassificationOutput(_Frozen):
    """One label, or an abstention: then `label` is null, `reason` says why, `score` stays the winner's."""

    kind: Literal["classification"] = "classification"
    label: str | None
    score: Score
    alternatives: list[ScoredLabel]
    """The top three, the winner first."""
    abstained: bool = False
    reason: Literal["below_threshold", "out_of_scope"] | None = None


class MultiLabelOutput(_Frozen):
    """The labels whose score reaches their threshold, highest first."""

    kind: Literal["multi_label"] = "multi_label"
    labels: list[ScoredLabel]


class Span(_Frozen):
    """A tagged part of the request's text. Offsets count Unicode code points, `end` is exclusive."""

    label: str
    text: str
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=1)]
    score: Score


class TaggingOutput(_Frozen):
    kind: Literal["tagging"] = "tagging"
    spans: list[Span]


Output = Annotated[ClassificationOutput | MultiLabelOutput | TaggingOutput, Field(discriminator="kind")]


class ModelRef(_Frozen):
    name: str
    version: int


class Source(_Frozen):
    """The coordinates of the record that was answered; `timestamp` in milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Result(_Frozen):
    """One agent's answer to one request. It carries no text: who routes a record on publishes the original value."""

    request_id: str
    prediction_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    agent: str
    status: Literal["ok", "expired", "partial"] = "ok"
    model: ModelRef
    source: Source
    outputs: dict[str, Output]
    truncated: bool = False
    metadata: dict[str, str] = {}
    time: AwareDatetime
