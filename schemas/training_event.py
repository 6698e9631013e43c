"""Events of training runs: the value of `murmura.training`, keyed by the run's id."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .manifest import Name
from .result import ModelRef, UtcTime

MESSAGE_CHARACTERS: Final = 500
Figure = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class TrainingEventKind(StrEnum):
    STARTED = "run.started"
    """Repeated with the same run id when an interrupted run continues."""
    PROGRESS = "run.progress"
    """After each scoring of the validation sets, and without `metrics` every few seconds in between."""
    EVALUATED = "run.evaluated"
    GATE_PASSED = "gate.passed"
    GATE_REFUSED = "gate.refused"
    RELEASED = "run.released"
    FAILED = "run.failed"


class GateFigure(BaseModel):
    """Both versions on the rows of one set of one task. Shares; `low` and `high` bound the difference at 95 %.

    Of a target `candidate` is the share of corrected rows that are right now, and `current` is 0: no accuracy.
    """

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    task: Name
    set: str
    rows: Count
    current: Figure
    candidate: Figure
    difference: Figure
    low: Figure
    high: Figure
    allowance: Figure
    target: bool = False
    """Whether it had to improve."""
    verdict: str
    """`better`, `worse`, `held`, or `unproven` for a target without a significant improvement."""
    conversations: Count | None = None
    discordant: Count | None = None
    """Conversations that the two versions answer with different scores."""
    p: Figure | None = None
    """One-sided, for a loss, corrected for the number of sets; of a target for a gain."""
    detectable: Figure | None = None
    """The smallest loss that would have been found with a probability of 80 %; missing when none would."""
    versions: Count | None = None
    """How many versions this set has judged, this one included."""
    flipped: Count | None = None
    """Of a target: wrong rows without feedback that are right now, of `flip_rows`."""
    flip_rows: Count | None = None


def _short(message: str | None) -> str | None:
    return message if message is None or len(message) <= MESSAGE_CHARACTERS else message[: MESSAGE_CHARACTERS - 1] + "…"


class TrainingEvent(BaseModel):
    """One event of one run."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    event: TrainingEventKind
    run: Annotated[str, Field(min_length=1, max_length=200)]
    name: Name
    """Of the model."""
    current: ModelRef | None = None
    """The version that the run started from, and that the gate compares with."""
    step: Count | None = None
    steps: Count | None = None
    loss: dict[str, Figure] = {}
    """By task, smoothed."""
    metrics: dict[str, dict[str, Figure]] = {}
    """By task: on validation rows while training; by `task/set` once evaluated."""
    gate: list[GateFigure] = []
    version: Annotated[int, Field(ge=1)] | None = None
    """Of the candidate, once it is in the store."""
    generation: Annotated[int, Field(ge=1)] | None = None
    """Of the release."""
    message: Annotated[str | None, AfterValidator(_short)] = None
    """For people; cut at 500 characters."""
    at: UtcTime

    @property
    def key(self) -> str:
        """The record's key."""
        return self.run

    def event_type(self) -> str:
        """CloudEvents type, for example `murmura.gate.passed.v1`."""
        return f"murmura.{self.event}.v1"
