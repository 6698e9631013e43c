"""Events of serving processes: the value of `murmura.events`."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .result import UtcTime

MESSAGE_CHARACTERS: Final = 500


class ServingEventKind(StrEnum):
    MODEL_SWAPPED = "model.swapped"
    MODEL_REJECTED = "model.rejected"
    MODEL_FELL_BACK = "model.fell_back"
    """An earlier version serves in this process, because the device fails with the released one."""
    REPLIES_SWITCHED = "replies.switched"
    """Generated replies of conversations were switched on or off; the message says for which intents, by whom and why."""
    EXPERIMENT_STARTED = "experiment.started"
    """Of a version beside the current one, or of its shadow. The message of all five says who did it and why."""
    EXPERIMENT_RAISED = "experiment.raised"
    EXPERIMENT_PROMOTED = "experiment.promoted"
    """The candidate answers all but what is held back."""
    EXPERIMENT_COMPLETED = "experiment.completed"
    """The candidate is current."""
    EXPERIMENT_STOPPED = "experiment.stopped"
    CANDIDATE_REJECTED = "candidate.rejected"
    """This process does not serve the candidate; the current version answers its share."""
    CANDIDATE_FAILED = "candidate.failed"
    """This process stopped the candidate after it went live; the current version answers its share."""
    PAUSED = "paused"
    RESUMED = "resumed"
    DEVICE_FAILED = "device.failed"
    DEVICE_RECOVERED = "device.recovered"


class RejectReason(StrEnum):
    """Why a model is not served: the closed list of `reason`, also a label of metrics."""

    MISSING = "missing"
    DAMAGED = "damaged"
    """A file does not match the manifest."""
    WRONG_DIGEST = "wrong_digest"
    """The manifest is not the one that was released."""
    TOO_LARGE = "too_large"
    NOT_A_MODEL = "not_a_model"
    UNSAFE_PATH = "unsafe_path"
    """A path that leaves, or could leave, the folder."""
    LINK = "link"
    """A symbolic or hard link, a pipe, a device: anything but a regular file with one name."""
    PICKLE = "pickle"
    """A format that can run code when it is read."""
    WRONG_SHAPE = "wrong_shape"
    NOT_FINITE = "not_finite"
    NOT_REPRODUCED = "not_reproduced"
    """The reference sample is not reproduced."""
    ENDLESS = "endless"
    """It did not answer in time and was terminated, or it ends none of its replies to the reference sample."""
    LACKS_TASK = "lacks_task"
    """A running agent needs a task that it does not have."""
    NO_BASE = "no_base"
    """The base checkpoint of a delta is unavailable."""
    NO_ROOM = "no_room"
    STORE_UNREACHABLE = "store_unreachable"
    UNSUPPORTED = "unsupported"
    """A candidate, which this version of murmura cannot serve, or a task of a kind that is not installed."""
    FAILED = "failed"
    """Any other failure, described in the message."""


def _short(message: str | None) -> str | None:
    return message if message is None or len(message) <= MESSAGE_CHARACTERS else message[: MESSAGE_CHARACTERS - 1] + "…"


class ServingEvent(BaseModel):
    """One event of one process. `name` to `generation` are about the model; an event about the app leaves them out."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    event: ServingEventKind
    app: str
    instance: str | None = None
    """The unique name of the process."""
    name: str | None = None
    version: int | None = None
    """The version that was swapped in or refused."""
    previous: int | None = None
    """The version that was swapped out, or keeps serving."""
    generation: int | None = None
    reason: RejectReason | None = None
    message: Annotated[str | None, AfterValidator(_short)] = None
    """For people; cut at 500 characters."""
    seconds: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    """Duration of the swap from the release record on, of the pause, or of the device's failure."""
    at: UtcTime

    @property
    def key(self) -> str:
        """The record's key: the model's name, else the app's."""
        return self.name or self.app

    def event_type(self) -> str:
        """CloudEvents type, for example `murmura.model.swapped.v1`."""
        return f"murmura.{self.event}.v1"
