"""Conversations: a person's turn, the reply, the state between turns, and a hand-over to a person.

The key of all four is the conversation's id, in UTF-8.
"""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from .acts import Act
from .experiment import ExperimentId
from .request import MAX_METADATA
from .result import ModelRef, Source, Variant

REPLY_TYPE: Final = "murmura.dialogue.reply.v1"
STATE_TYPE: Final = "murmura.dialogue.state.v1"
HAND_OVER_TYPE: Final = "murmura.handoff.v1"
"""CloudEvents types of what the dialogue agent publishes."""

CONVERSATION_ID_BYTES: Final = 256
TURN_CHARACTERS: Final = 1000
"""Maximum length of a turn's text in the state."""
REPLY_CHARACTERS: Final = 2000
SLOT_CHARACTERS: Final = 200
STATE_BYTES: Final = 512 * 1024
"""Maximum size of a state's record: by default a topic accepts 1 MiB."""


def _not_blank(text: str) -> str:
    if text.isspace():
        raise ValueError("the text is blank")
    return text


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Turn(BaseModel):
    """What a person says. `{"text": "..."}` is enough; unknown fields are ignored and never echoed.

    The record's key names the conversation and is required: it is what keeps the turns of one conversation in order.
    """

    model_config = ConfigDict(frozen=True, strict=True, use_attribute_docstrings=True)

    text: Annotated[str, StringConstraints(min_length=1), AfterValidator(_not_blank)]
    id: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Id of this turn: a turn repeated with the same id gets the same reply."""
    metadata: dict[str, str] | None = Field(default=None, max_length=MAX_METADATA)
    """Copied to the reply. `handover: ended` returns a conversation to the agent."""


class ReplyKind(StrEnum):
    ANSWERED = "answered"
    """Understood, and all needed slots are filled."""
    ASKED = "asked"
    """Understood; the reply asks for a slot that is missing."""
    GREETED = "greeted"
    """Not understood, but it was the first turn: the reply is the greeting."""
    NOT_UNDERSTOOD = "not_understood"
    HANDED_OVER = "handed_over"
    """With this turn the conversation goes to a person."""
    WITH_PERSON = "with_person"
    """The conversation is with a person; the turn was passed on."""


class Wording(StrEnum):
    """Where the words of a reply come from."""

    TEMPLATE = "template"
    """The policy."""
    GENERATED = "generated"
    """The model, with the values of slots put in."""
    KNOWLEDGE = "knowledge"
    """A reviewed answer."""


class WordingReason(StrEnum):
    """Why the template was sent in place of a reply of the model: the closed list, also a label of metrics."""

    SWITCHED_OFF = "switched_off"
    """Generated replies are off, for this intent or all."""
    LATE = "late"
    FAILED = "failed"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    """It has more pieces or characters than a reply may have, or more tokens than the filter reads."""
    MISSING_SLOT = "missing_slot"
    """It lacks a slot that the template has."""
    UNKNOWN_SLOT = "unknown_slot"
    """It names a slot without a value."""
    LOW_SCORE = "low_score"
    FACT = "fact"
    """It states a number, amount, date, duration or address outside slots, or has a letter or slot directly beside one."""
    UNKNOWN_NAME = "unknown_name"
    """It has a capitalised word that neither the policy nor its list of words has."""
    STOP_WORD = "stop_word"
    """A phrase of the policy stopped the turn or the reply."""
    FILTERED = "filtered"
    """The filter task stopped the turn or the reply."""


class Stopped(_Frozen):
    """A text that was found harmful: a turn, or a generated reply, which was not sent."""

    text: str
    """Cut at 1,000 characters."""
    reason: str
    """The label that it was stopped for."""


class WordedPart(_Frozen):
    """The part of a reply that the policy lets the model word; what stands around it the policy says itself."""

    start: Annotated[int, Field(ge=0)]
    """In code points, like `end`, which is exclusive."""
    end: Annotated[int, Field(ge=0)]
    acts: list[Act] = []
    """What it says: the acts that the model reads."""


class Reply(_Frozen):
    """The answer to one turn. A turn delivered again gets the same answer with the same prediction id."""

    request_id: str
    prediction_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    agent: str
    conversation: str
    number: Annotated[int, Field(ge=1)]
    """Of the turn in its conversation."""
    kind: ReplyKind
    text: str
    intent: str | None = None
    """The current intent."""
    slots: dict[str, str] = {}
    """The filled slots."""
    asked: str | None = None
    """The slot that the reply asks for."""
    acts: list[Act] = []
    """What the reply says."""
    part: WordedPart | None = None
    """What of the text the model may word, where that is not all; `wording` is then that of this part."""
    wording: Wording = Wording.TEMPLATE
    wording_reason: WordingReason | None = None
    """Why the template was sent instead of words of the model."""
    truncated: bool = False
    """Whether the text of the turn itself was cut for the model, for its intent or behind the acts of the reply."""
    model: ModelRef | None = None
    """That read the turn. None when it was passed to a person without a prediction."""
    worded_by: ModelRef | None = None
    """That worded a generated reply, where it is not `model`: a new version came between the two, or nothing read the turn."""
    candidate_failed: bool = Field(default=False, exclude_if=lambda failed: not failed)
    """Whether a candidate failed on the turn before the current version read it."""
    source: Source
    """Of the turn."""
    metadata: dict[str, str] = {}


class Exchange(_Frozen):
    """A turn and its reply, as kept in the state."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    """The reply's prediction id."""
    timestamp: int
    """Of the turn, in milliseconds since 1970."""
    text: str
    """Cut at 1,000 characters."""
    reply: str
    intent: str | None = None
    """The understood intent; None: not understood."""


class ConversationSide(_Frozen):
    """The side of an experiment that a conversation is on."""

    experiment: ExperimentId
    variant: Variant
    unit: int | None = None
    """The place of the unit that it was chosen by, where a field of the metadata is the unit."""


class Action(_Frozen):
    """A record published by a policy."""

    topic: str
    value: dict[str, JsonValue]


class HandOverReason(StrEnum):
    LOW_CONFIDENCE = "low_confidence"
    """The score was too low for another question to help."""
    NOT_UNDERSTOOD = "not_understood"
    """Too many turns in a row were not understood."""
    FILTERED = "filtered"
    """The turn was found harmful."""
    POLICY = "policy"
    """The policy hands this intent over."""
    CONTINUED = "continued"
    """A further turn of a conversation that is with a person."""


class HandOver(_Frozen):
    """A conversation for a person, up to and including the turn that caused the hand-over."""

    request_id: str
    prediction_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    agent: str
    conversation: str
    number: Annotated[int, Field(ge=1)]
    reason: HandOverReason
    intent: str | None = None
    slots: dict[str, str] = {}
    turns: list[Exchange]
    """The last ones, oldest first."""
    source: Source
    metadata: dict[str, str] = {}


class ConversationState(_Frozen):
    """The state of a conversation after its last turn.

    Whatever the last turn led to can be published again from it. It depends on nothing but the turns and their
    predictions, so replaying the log gives the same state.
    """

    conversation: str
    number: Annotated[int, Field(ge=1)]
    """Number of turns so far, also those before it expired: of two states the higher number is the later."""
    source: Source
    """Of the last turn. A turn of the same partition at or below its offset has been applied, unless it is newer than
    `newest`: then the topic was recreated."""
    newest: int = 0
    """The highest timestamp of all turns so far; senders' clocks differ. 0: unknown, use that of the last turn."""
    turns: list[Exchange] = []
    """The last ones, oldest first."""
    intent: str | None = None
    slots: dict[str, str] = {}
    asked: str | None = None
    misunderstood: Annotated[int, Field(ge=0)] = 0
    """Number of consecutive turns that were not understood."""
    with_person: bool = False
    kind: ReplyKind
    """Of the last reply; its text is the last turn's."""
    acts: list[Act] = []
    """Of the last reply, like `part`, `wording`, `wording_reason` and `truncated`."""
    part: WordedPart | None = None
    wording: Wording = Wording.TEMPLATE
    wording_reason: WordingReason | None = None
    truncated: bool = False
    stopped: Stopped | None = None
    """The last turn, or what was worded as its reply, if it was found harmful."""
    model: ModelRef | None = None
    """That read the last turn."""
    worded_by: ModelRef | None = None
    """As in the last reply."""
    candidate_failed: bool = Field(default=False, exclude_if=lambda failed: not failed)
    """As in the last reply."""
    actions: list[Action] = []
    """Of the last turn."""
    handover: HandOverReason | None = None
    """Of the last turn."""
    side: ConversationSide | None = Field(default=None, exclude_if=lambda side: side is None)
    """Kept until the conversation expires or the experiment ends, also when its share is raised."""

    def reply(self, agent: str, request_id: str, metadata: dict[str, str] | None) -> Reply:
        """Return the reply to the last turn."""
        ids = self._link(agent, request_id, metadata)
        return Reply(
            **ids,
            asked=self.asked,
            kind=self.kind,
            text=self.turns[-1].reply,
            acts=self.acts,
            part=self.part,
            wording=self.wording,
            wording_reason=self.wording_reason,
            truncated=self.truncated,
            model=self.model,
            worded_by=self.worded_by,
            candidate_failed=self.candidate_failed,
        )

    def hand_over(self, agent: str, request_id: str, metadata: dict[str, str] | None) -> HandOver | None:
        """Return the hand-over of the last turn, None without one."""
        if self.handover is None:
            return None
        ids = self._link(agent, request_id, metadata)
        return HandOver(**ids, reason=self.handover, turns=self.turns)

    def _link(self, agent: str, request_id: str, metadata: dict[str, str] | None) -> dict[str, Any]:
        return {
            "request_id": request_id,
            "prediction_id": self.turns[-1].id,
            "agent": agent,
            "conversation": self.conversation,
            "number": self.number,
            "intent": self.intent,
            "slots": self.slots,
            "source": self.source,
            "metadata": metadata or {},
        }
