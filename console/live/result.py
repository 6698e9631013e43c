"""A result, or a reply of a conversation: what is read of it as it passes, and what when somebody looks."""

from typing import Any, Final, Literal

import msgspec

from ...schemas.result import ModelRef, Source
from .answers import Answer, Scored, read_answers

REPLY_TASK: Final = "reply"
"""What feedback on the words of a reply names as its task."""
_NAME_CHARACTERS: Final = 300
_MOST_ACTS: Final = 50
_NO_OUTPUTS: Final = msgspec.Raw(b"{}")


class _Model(msgspec.Struct, frozen=True):
    name: str
    version: int
    variant: Literal["current", "candidate"] = "current"


class _Source(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    offset: int
    timestamp: int


class _Value(msgspec.Struct):
    """What results and replies have in common."""

    prediction_id: str
    request_id: str
    agent: str
    source: _Source
    model: _Model | None = None


class _Result(_Value):
    """Its outputs are read when somebody looks."""

    outputs: msgspec.Raw = _NO_OUTPUTS
    status: str = "ok"


class _Act(msgspec.Struct, frozen=True):
    act: str
    slot: str | None = None
    intent: str | None = None


class _Reply(_Value, kw_only=True):
    kind: str
    text: str
    wording: str = "template"
    acts: list[_Act] = []


_read_result: Final = msgspec.json.Decoder(_Result).decode
_read_reply: Final = msgspec.json.Decoder(_Reply).decode
_read_outputs: Final = msgspec.json.Decoder(dict[str, Any]).decode


class LiveResult:
    """An answer without its text. `number`: its place in the order of arrival. `at`: the log's time (Unix, s)."""

    __slots__ = ("_answers", "_outputs", "_value", "agent", "at", "number", "prediction_id", "request_id", "status")
    is_reply = False

    def __init__(self, number: int, value: _Value, at: float, outputs: msgspec.Raw, status: str) -> None:
        self.number, self.at, self._value, self._outputs = number, at, value, outputs
        self.prediction_id, self.request_id, self.agent = value.prediction_id, value.request_id, value.agent
        self.status = status
        self._answers: tuple[Answer, ...] | None = None

    @property
    def outputs(self) -> dict[str, Any]:
        """The outputs by task, as they were written; empty where they are of no such form."""
        try:
            return _read_outputs(self._outputs)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return {}

    @property
    def answers(self) -> tuple[Answer, ...]:
        if self._answers is None:
            self._answers = self._list_answers()
        return self._answers

    def _list_answers(self) -> tuple[Answer, ...]:
        return tuple(read_answers(self.outputs))

    @property
    def model(self) -> ModelRef | None:
        """The version that answered; None for a reply that no model had a part in."""
        model = self._value.model
        return None if model is None else ModelRef(name=model.name, version=model.version, variant=model.variant)

    @property
    def source(self) -> Source:
        each = self._value.source
        return Source(topic=each.topic, partition=each.partition, offset=each.offset, timestamp=each.timestamp)

    @property
    def took_ms(self) -> float:
        """From the time of the request's record to that of the result's."""
        return 1000 * self.at - self._value.source.timestamp

    @property
    def version(self) -> str:
        """Name and version of the model; empty without one."""
        model = self._value.model
        return "" if model is None else f"{model.name} {model.version}"


class LiveReply(LiveResult):
    """The reply to a turn: its words, what it says as acts, and where the words come from. It has no scores."""

    __slots__ = ("_reply",)
    is_reply = True

    def __init__(self, number: int, value: _Reply, at: float) -> None:
        super().__init__(number, value, at, _NO_OUTPUTS, value.kind)
        self._reply = value

    @property
    def outputs(self) -> dict[str, Any]:
        return {REPLY_TASK: {"text": self._reply.text}}

    def _list_answers(self) -> tuple[Answer, ...]:
        reply = self._reply
        acts = tuple(Scored(_describe_act(act)[:_NAME_CHARACTERS]) for act in reply.acts[:_MOST_ACTS])
        note = f"{reply.kind}, {reply.wording}".replace("_", " ")[:_NAME_CHARACTERS]
        return (Answer(REPLY_TASK, acts, text=reply.text, note=note),)


def _describe_act(act: _Act) -> str:
    about = act.slot or act.intent
    return f"{act.act} {about}" if about else act.act


def read_live_result(value: bytes, number: int, at: float) -> LiveResult | None:
    """Return the result in a record's value; None for anything else."""
    try:
        found = _read_result(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if found.model is None or not _has_short_names(found):
        return None
    return LiveResult(number, found, at, found.outputs, found.status)


def read_live_reply(value: bytes, number: int, at: float) -> LiveResult | None:
    """Return the reply in a record's value; None for anything else."""
    try:
        found = _read_reply(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return LiveReply(number, found, at) if _has_short_names(found) else None


def _has_short_names(value: _Value) -> bool:
    model = value.model.name if value.model else ""
    return max(map(len, (value.prediction_id, value.request_id, value.agent, model))) <= _NAME_CHARACTERS
