"""Every error that Murmura raises on purpose.

MurmuraError
├── SetupError            wrong before anything starts: settings, broker, topics, model, device; one line, exit code 2
│   └── ModelRefused      a model folder that is missing, damaged or not to be trusted; `reason` is its short code
│       └── VersionRefused  a version of a model store
├── RecordError           one record cannot be answered; becomes a dead letter with `reason`
├── ModelFailed           a forward pass failed; the record at fault is looked for
│   └── DeviceFailed      the device is at fault and no record: what was asked of it is asked again
├── DeliveryError         the broker did not take a message; `scope` says whose failure that is
│   ├── RecordTooLarge    the message's: it is larger than the topic allows
│   ├── RecordRefused     the message's, for what it holds or lacks
│   │   └── PartitionMissing  it names a partition that the topic does not have
│   ├── TopicRefused      the topic's: it is not there, or takes nothing of ours
│   └── ProcessRefused    this process's: the broker takes nothing of it
├── Retry                 raised by an agent: this record is to be tried again later
└── Closed                asked of something that has stopped

What a failure of Kafka concerns is said by the table in `scopes.py`.
"""

import errno
from enum import StrEnum
from typing import Final

from ..schemas.deadletter import DeadLetterReason
from ..schemas.serving_event import RejectReason

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Codes of OSError that say that a disk is full, or somebody's share of it."""


class Scope(StrEnum):
    """Whose failure it is."""

    RECORD = "record"
    """This record, or this message: a dead letter takes its place."""
    TOPIC = "topic"
    """All that goes to this topic or comes from it. An output that an agent declares: the agent. An input: its partitions."""
    BROKER = "broker"
    """The connection, the coordinator, the cluster: try again for as long as it takes."""
    PROCESS = "process"
    """This process as it is set up or written: it cannot go on."""


class MurmuraError(Exception):
    """Base of all."""


class SetupError(MurmuraError):
    """Raised before anything starts. The message is one line: what is wrong, what was found, what to do."""


class ModelRefused(SetupError):
    """A model folder was looked at and will not be loaded. `reason` is the code for events and metrics."""

    def __init__(self, message: str, reason: RejectReason = RejectReason.NOT_A_MODEL) -> None:
        super().__init__(message)
        self.reason = reason


class VersionRefused(ModelRefused):
    """A version of a model store cannot be had, or is not what was released.

    `retriable`: the store did not answer, so that asking it again can help.
    """

    def __init__(self, reason: str, message: str, *, certain: bool = True) -> None:
        """`reason` is a value of RejectReason. Not `certain`: the machine may be at fault as well as the version."""
        super().__init__(message, RejectReason(reason))
        self.certain = certain
        self.retriable = self.reason is RejectReason.STORE_UNREACHABLE


class RecordError(MurmuraError):
    """One record cannot be answered. The message never quotes the payload."""

    def __init__(self, reason: DeadLetterReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Retry(MurmuraError):
    """Raised by a decision or a handler: what it needs is not there now, so this record is to be tried again later."""

    def __init__(self, after_s: float | None = None, why: str = "") -> None:
        """`after_s`: the pause; None: as the agent's settings say. `why` goes into logs and dead letters: never a text."""
        if after_s is not None and not 0 <= after_s < float("inf"):
            raise ValueError(f"after_s: expected seconds from 0 on, found {after_s!r}")
        super().__init__(why)
        self.after_s, self.why = after_s, why


class ModelFailed(MurmuraError):
    """A forward pass raised, was ended, or gave numbers that are not finite."""


class DeviceFailed(ModelFailed):
    """The device failed: out of memory, a run past its deadline, a reference sample that does not come out any more."""

    def __init__(self, message: str, *, lost: bool = False) -> None:
        """`lost`: this process cannot use the device again; another one may."""
        super().__init__(message)
        self.lost = lost


class DeliveryError(MurmuraError):
    """The broker did not take a message, and trying it again as it is would not help."""

    scope = Scope.RECORD


class RecordTooLarge(DeliveryError):
    """The broker will never take this record: it is larger than it allows."""


class RecordRefused(DeliveryError):
    """The broker will never take this record, for what it holds or lacks: no key in a compacted topic, for example."""


class PartitionMissing(RecordRefused):
    """The message names a partition that its topic does not have."""


class TopicRefused(DeliveryError):
    """The topic is not there, or not for this user, or its policy refuses what is sent: so would be the next message."""

    scope = Scope.TOPIC


class ProcessRefused(DeliveryError):
    """The broker takes nothing of this process, whatever the topic: a permission or a feature is missing."""

    scope = Scope.PROCESS


class Closed(MurmuraError):
    """The engine or batcher has been stopped; no answer will come."""


def place_of(error: BaseException | None) -> str:
    """Say what was raised and where, without its message: that may quote a text."""
    if error is None:
        return "unknown"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" at {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame is not None else ""
    return type(error).__name__ + place
