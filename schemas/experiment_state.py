"""What is kept of an experiment: the values of `murmura.experiments`, from which its holder goes on after a restart.

An experiment has one state, keyed `ID#state`, and for every 4,096 units that have entered one record, keyed `ID#NUMBER`, that
never changes.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from .experiment import Experiment
from .manifest import Name
from .release import Generation, Version
from .result import UtcTime

STATE_PART: Final = "state"
UNIT_BYTES: Final = 8

Side = Literal["candidate", "control"]
Count = Annotated[int, Field(ge=0)]
Bins = dict[str, Count]
"""By the number of a bin; empty ones are left out."""
Sums = Annotated[list[float], Field(min_length=8, max_length=8)]
"""Units, events, chances, the squares of both and their product, units with an event, and with a chance without one."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Decided(_Frozen):
    """A decision: the first of its kind stays."""

    action: Literal["promote", "complete", "stop"]
    why: str
    at: UtcTime
    """By the time of the records that it is based on."""


class Ended(_Frozen):
    """The end of an experiment."""

    by: Literal["completed", "stopped", "released", "removed"]
    """`released`: another version was released, or one was gone back to. `removed`: the model's releases were ended."""
    generation: Generation | None = None
    at: UtcTime


class PassRatios(_Frozen):
    """Device time of passes divided by the calibrated time, in windows of ten minutes."""

    open: dict[str, dict[Side, dict[str, Count]]] = {}
    """By window and side, the number of results by step of a logarithmic scale."""
    closed: int = -1
    """The last window that is over."""
    in_row: Count = 0
    """Number of latest windows in which the candidate was too slow."""
    latest: list[float] = []
    """The 95th percentiles of the latest window with enough results: the candidate's and the control's."""


class ExperimentState(_Frozen):
    """The running sums of an experiment with the offsets up to which they hold, and what was decided."""

    experiment: Experiment
    model: Name
    current: Version
    candidate: Version
    minute: int
    """The last look: minutes since 1970, by the time of the records."""
    begin_at: dict[str, int] = {}
    """By log (`TOPIC/PARTITION`), the offset to read from: before all open units."""
    read_until: dict[str, int] = {}
    """By log, the offset behind the last record that was read."""
    skipped_offsets: dict[str, list[int]] = {}
    """What `skipped_spans` is now, one offset each. Not written any more."""
    skipped_spans: dict[str, list[tuple[int, int, int]]] = {}
    """By log, parts behind `begin_at` in which records were skipped because their time was far ahead: first and last offset, and the
    minute behind which records were skipped there.
    """
    sums: dict[str, dict[Side, Sums]] = {}
    """By measure and side."""
    units: dict[Side, Count] = {}
    expected: float = 0.0
    """Sum over the units of the chance to be on the candidate's side; `variance` is that of the number there."""
    variance: float = 0.0
    moved: Count = 0
    skipped: dict[str, Count] = {}
    """Records that are in no sum, by reason."""
    answers: dict[str, Count] = {}
    """Results by who answered: `candidate`, `control`, and `fallback`, the current version in place of the candidate."""
    entered_minute: int = -1
    """Up to here units have entered."""
    sampled: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Part of the units that is counted."""
    open_units: Count = 0
    chunks: Count = 0
    """Number of records of entered units that belong to this state."""
    tail: str = ""
    """The units behind them: 8 bytes each, big endian, in base64."""
    pass_ratios: PassRatios = PassRatios()
    scores: dict[str, dict[Side, Bins]] = {}
    """By task and who answered, the number of answers in each of 20 bins of the score, from 0."""
    latency: dict[Side, Bins] = {}
    """By who answered, the number of results by time since the request, in quarters of a doubling of milliseconds, from 0."""
    decided: list[Decided] = []
    """Oldest first."""
    ended: Ended | None = None


class EnteredChunk(_Frozen):
    """Units that have entered an experiment, as a record of their own."""

    experiment: str
    number: Count
    units: str
    """Like `tail`."""
