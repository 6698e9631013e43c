"""Turns, replies, states and hand-overs: what the first version wrote stays readable, what is no turn is refused."""

import json

import jsonschema
import pytest
from pydantic import ValidationError

from murmura.schemas.dialogue import ConversationState, HandOver, HandOverReason, Reply, ReplyKind, Turn
from murmura.schemas.generate import schema_of

# Records of the first version with every field spelled out. Only added to, never edited.
SOURCE = {"topic": "murmura.dialogue.turns", "partition": 3, "offset": 17, "timestamp": 1767606000000}
EXCHANGE = {
    "id": "ab" * 16,
    "timestamp": 1767606000000,
    "text": "send some money to Ann",
    "reply": "How much would you like to send?",
    "intent": "transfer",
}
TURN = {"text": "send some money to Ann", "id": "t-2", "metadata": {"channel": "web"}}
ABOUT = {
    "request_id": "t-2",
    "prediction_id": "ab" * 16,
    "agent": "dialogue",
    "conversation": "c-1",
    "number": 2,
    "intent": "transfer",
    "slots": {"payee": "Ann"},
    "source": SOURCE,
    "metadata": {"channel": "web"},
}
REPLY = {
    **ABOUT,
    "kind": "asked",
    "text": "How much would you like to send?",
    "asked": "amount",
    "model": {"name": "desk", "version": 4},
}
STATE = {
    "conversation": "c-1",
    "number": 2,
    "source": SOURCE,
    "turns": [EXCHANGE],
    "intent": "transfer",
    "slots": {"payee": "Ann"},
    "asked": "amount",
    "misunderstood": 0,
    "with_person": False,
    "kind": "asked",
    "model": {"name": "desk", "version": 4},
    "actions": [{"topic": "bank.transfers", "value": {"amount": "£20", "urgent": True, "tries": 1}}],
    "handover": "policy",
}
HAND_OVER = {**ABOUT, "reason": "policy", "turns": [EXCHANGE]}


@pytest.mark.parametrize(
    ("kind", "value", "schema"),
    [
        (Turn, TURN, "turn.v1"),
        (Reply, REPLY, "reply.v1"),
        (ConversationState, STATE, "conversation_state.v1"),
        (HandOver, HAND_OVER, "hand_over.v1"),
    ],
)
def test_a_record_of_the_first_version_stays_readable(kind, value, schema):
    read = kind.model_validate_json(json.dumps(value))
    written = json.loads(read.model_dump_json())
    assert {name: written[name] for name in value} == value
    jsonschema.validate(value, schema_of(schema))


def test_what_the_last_turn_led_to_comes_out_of_the_state_again():
    state = ConversationState.model_validate(STATE)
    assert state.reply("dialogue", "t-2", {"channel": "web"}) == Reply.model_validate(REPLY)
    assert state.hand_over("dialogue", "t-2", {"channel": "web"}) == HandOver.model_validate(HAND_OVER)
    assert state.model_copy(update={"handover": None}).hand_over("dialogue", "t-2", None) is None


@pytest.mark.parametrize(
    "flaw",
    [
        {"text": ""},
        {"text": "  \n"},
        {"text": 5},
        {"id": ""},
        {"metadata": {"n": 1}},
        {"metadata": {str(n): "" for n in range(17)}},
    ],
)
def test_what_is_no_turn_is_refused(flaw):
    with pytest.raises(ValidationError):
        Turn.model_validate(TURN | flaw)


def test_kinds_and_reasons_of_the_first_version_stay():
    kinds = {"answered", "asked", "greeted", "not_understood", "handed_over", "with_person"}
    assert {kind.value for kind in ReplyKind} >= kinds
    assert {reason.value for reason in HandOverReason} >= {"low_confidence", "not_understood", "policy", "continued"}
