"""A text to answer, and who receives its answer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ....schemas.acts import Act, Utterance
from ...agent.result_envelope import Variant
from ...model.generated import Generated
from ...model.inputs import Input
from .reply_places import Place


class Sink(Protocol):
    """Receives answered entries. Its methods are called on the event loop, once per batch, and must not block."""

    def deliver(self, entries: "list[Entry]") -> None:
        """Receive answered entries in order of arrival, each with `outputs` or `error`, without cancelled ones."""

    def take_back(self, entries: "list[Entry]") -> None:
        """Encode and submit entries again: their own model failed on this device, or is not loaded any more.

        One with an `error` is one that its candidate alone fails on: the serving model answers it.
        """


class ReplyRequest(NamedTuple):
    """What a reply is worded from."""

    turns: Sequence[Utterance]
    acts: Sequence[Act]
    slots: frozenset[str] | None
    """The slots that it may name; None: all of the task."""
    is_forbidden: Callable[[str], bool] | None = None
    """Which other pieces it must not have."""


class Entry:
    """One text (or two, read together) to answer. `outputs` and `error` are set on the event loop, just before delivery.

    The submitter may set `cancelled` at any time: then the entry is left out of the next batch, or its answer is dropped.
    """

    __slots__ = (
        "arrived",
        "cancelled",
        "context",
        "encoded",
        "error",
        "generated",
        "model",
        "outputs",
        "pass_ratio",
        "place",
        "replies_left",
        "reply",
        "sink",
        "tasks",
        "text",
        "thresholds",
        "variant",
    )

    def __init__(
        self,
        text: Input,
        tasks: tuple[str, ...],
        encoded: Any,
        sink: Sink,
        context: Any = None,
        thresholds: Mapping[str, Any] | None = None,
        model: Any = None,
        reply: ReplyRequest | None = None,
        place: Place | None = None,
        variant: Variant = "current",
    ) -> None:
        self.text = text
        self.tasks = tasks
        self.encoded = encoded
        self.sink = sink
        self.context = context
        """An object of the sink, not used here."""
        self.thresholds = thresholds
        """Overrides by task. Share one mapping between entries: rows with the same object are decoded together."""
        self.model = model
        """The loaded version that encoded it and must answer it; a batch has one. A waiting entry keeps it alive."""
        self.reply = reply
        """What a reply is worded from, where one is asked for on its own."""
        self.place = place
        """Given back after the first step of its first reply, held again where its replies begin anew."""
        self.variant: Variant = variant
        """As what its model answers, for a single caller."""
        self.cancelled = False
        self.arrived = 0.0
        self.outputs: dict[str, dict[str, Any]] | None = None
        self.error: Exception | None = None
        self.pass_ratio: float | None = None
        """Device time of its pass, divided by the calibrated time; None where it is not known."""
        self.replies_left = 0
        """Number of tasks that generate whose replies have not ended."""
        self.generated: Generated | None = None
        """The reply that ended last."""
