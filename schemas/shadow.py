"""What a version that is only compared would have answered: the value of `murmura.shadow`. It has no text."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from .feedback import PredictionId
from .manifest import Name
from .result import Score, Source, UtcTime

SHADOW_TYPE: Final = "murmura.shadow.v1"
"""CloudEvents type of a record of the topic."""

Count = Annotated[int, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ShadowLabel(_Frozen):
    label: str | None
    """None: it was withheld."""
    score: Score


class ShadowAnswer(_Frozen):
    """One version's answer to one task."""

    answer: str
    """The answer without scores, on one line: a label, labels, or labels with the positions of their spans."""
    labels: list[ShadowLabel]
    reason: str | None = None
    """Why it was withheld."""


class ComparedTask(_Frozen):
    agrees: bool
    current: ShadowAnswer
    candidate: ShadowAnswer


class ComparedVersions(_Frozen):
    """The model whose versions are compared."""

    name: str
    current: int
    """The version that answered."""
    candidate: int
    """The version that was only compared."""


class ShadowDifference(_Frozen):
    """A request on which at least one task was answered differently."""

    kind: Literal["difference"] = "difference"
    model: ComparedVersions
    request_id: str
    predictions: dict[str, PredictionId]
    """The ids of the predictions that were sent, by agent."""
    source: Source
    tasks: dict[Name, ComparedTask]
    """All tasks that were compared."""
    time: UtcTime


class TaskCounts(_Frozen):
    compared: Count
    agreed: Count


class ShadowCounts(_Frozen):
    """What a process compared in about a minute. Requests, except in `tasks`."""

    kind: Literal["counts"] = "counts"
    model: ComparedVersions
    instance: str
    """The process."""
    since: UtcTime
    until: UtcTime
    answered: Count
    """Those that the current version answered."""
    chosen: Count
    """Those of the share."""
    compared: Count
    agreed: Count
    """Those whose compared tasks all agree."""
    dropped: Count
    """Those that waited while the device was busy and were dropped to stay within the bytes."""
    too_long: Count
    """Those that alone would take more device time than a pass may."""
    failed: Count
    """Those that the compared version failed on."""
    tasks: dict[Name, TaskCounts] = {}


class ShadowRecord(RootModel[Annotated[ShadowDifference | ShadowCounts, Field(discriminator="kind")]]):
    """A record of the topic: a difference, or counts."""
