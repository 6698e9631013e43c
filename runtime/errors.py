"""The errors that Murmura raises.

MurmuraError
├── SetupError            invalid settings, broker, topics, model or device before the start; one line, exit code 2
│   ├── OutcomeUnknown    a release was sent, and whether it holds was not found out
│   └── ModelRefused      a missing, damaged or untrusted model folder; `reason` is a short code
│       └── VersionRefused  a version of a model store
├── RecordError           one record cannot be answered; becomes a dead letter with `reason`
├── ModelFailed           a forward pass failed; the record that caused it is searched for
│   └── DeviceFailed      caused by the device, not by a record: the work is repeated
├── DeliveryError         the broker did not accept a message; `scope` is what the failure concerns
│   ├── RecordTooLarge    the message: larger than the topic allows
│   ├── RecordRefused     the message: its content is invalid
│   │   └── PartitionMissing  its topic does not have the partition
│   ├── TopicRefused      the topic: missing, or accepts no message of this process
│   └── ProcessRefused    the process: the broker accepts no message of it
├── Late                  a reply was not worded by its deadline
├── Retry                 raised by an agent: retry this record later
└── Closed                the called part has stopped

The scopes of Kafka's errors are in the table of `kafka/sending/scopes.py`.
"""

import errno
from enum import StrEnum
from typing import Final

from ..schemas.deadletter import DeadLetterReason
from ..schemas.serving_event import RejectReason

DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Codes of OSError for a full disk or a used-up quota: room can be made."""
NO_ROOM: Final = DISK_FULL | {errno.EFBIG}
"""Those, and the code for a file larger than may be written there, which no other attempt changes."""


class Scope(StrEnum):
    """What a failure concerns."""

    RECORD = "record"
    """This record or message: a dead letter replaces it."""
    TOPIC = "topic"
    """All messages of this topic. For an output that an agent declares: the agent. For an input: its partitions."""
    BROKER = "broker"
    """The connection, the coordinator or the cluster: retry without limit."""
    PROCESS = "process"
    """The configuration or the code of this process: it cannot continue."""


class MurmuraError(Exception):
    """Base class of all errors."""


class SetupError(MurmuraError):
    """Raised before the start. The message is one line: what is wrong, what was found, what to do."""


class OutcomeUnknown(SetupError):
    """A release was sent, and whether it holds was not found out: look before you try again."""


class ModelRefused(SetupError):
    """A model folder must not be loaded. `reason` is the code for events and metrics."""

    def __init__(self, message: str, reason: RejectReason = RejectReason.NOT_A_MODEL) -> None:
        super().__init__(message)
        self.reason = reason


class VersionRefused(ModelRefused):
    """A version of a model store is unavailable, or differs from the released one.

    `retriable`: the store did not answer, so a retry can succeed.
    """

    def __init__(self, reason: str, message: str, *, certain: bool = True) -> None:
        """`reason` is a value of RejectReason. Not `certain`: the machine, not the version, may be the cause."""
        super().__init__(message, RejectReason(reason))
        self.certain = certain
        self.retriable = self.reason is RejectReason.STORE_UNREACHABLE


class RecordError(MurmuraError):
    """One record cannot be answered. The message must not contain text of the payload."""

    def __init__(self, reason: DeadLetterReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Retry(MurmuraError):
    """Raised by a decision or a handler to retry the record later, for example while a service is unavailable."""

    def __init__(self, after_s: float | None = None, why: str = "") -> None:
        """`after_s`: the pause; None: by the agent's settings. `why` is logged and written to dead letters: it must not
        contain text of the payload.
        """
        if after_s is not None and not 0 <= after_s < float("inf"):
            raise ValueError(f"after_s: expected seconds from 0 on, found {after_s!r}")
        super().__init__(why)
        self.after_s, self.why = after_s, why


class ModelFailed(MurmuraError):
    """A forward pass raised, was terminated, or returned numbers that are not finite."""


class DeviceFailed(ModelFailed):
    """The device failed: out of memory, a run past its deadline, or a reference sample that is not reproduced."""

    def __init__(self, message: str, *, lost: bool = False) -> None:
        """`lost`: this process cannot use the device again; another process may."""
        super().__init__(message)
        self.lost = lost


class Late(MurmuraError):
    """A reply was not worded by its deadline."""


class DeliveryError(MurmuraError):
    """The broker did not accept a message, and a retry would not help."""

    scope = Scope.RECORD


class RecordTooLarge(DeliveryError):
    """The record is larger than the broker allows."""


class RecordRefused(DeliveryError):
    """The broker refuses the content of this record: a missing key in a compacted topic, for example."""


class PartitionMissing(RecordRefused):
    """The topic does not have the partition of the message."""


class TopicRefused(DeliveryError):
    """The topic is missing, forbidden, or its policy refuses the message, so it would refuse the next one, too."""

    scope = Scope.TOPIC


class ProcessRefused(DeliveryError):
    """The broker accepts no message of this process on any topic: a permission or a feature is missing."""

    scope = Scope.PROCESS


class Closed(MurmuraError):
    """The engine or batcher has been stopped and will not answer."""


def describe_no_room(error: OSError) -> str:
    """Return a line for an error with a code of NO_ROOM."""
    causes = {errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "a file is larger than may be written there"}
    return f"{causes.get(error.errno or 0, 'the disk is full')}: {error}"


def describe_origin(error: BaseException | None) -> str:
    """Return the class of an error and where it was raised, without its message, which may contain text of a payload."""
    if error is None:
        return "unknown"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" at {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame is not None else ""
    return type(error).__name__ + place
