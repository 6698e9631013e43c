"""One turn of a conversation: from the state before and what the model said of the text to the state after. Pure.

It depends on the turns and their predictions alone, the time among them (a turn's own timestamp): whoever replays the
log gets the same states and the same replies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from ...runtime.agent.prediction import Output, Prediction
from ...runtime.errors import RecordError
from ...schemas.deadletter import DeadLetterReason as Reason
from ...schemas.dialogue import (
    REPLY_CHARACTERS,
    SLOT_CHARACTERS,
    STATE_BYTES,
    TURN_CHARACTERS,
    Action,
    ConversationState,
    Exchange,
    HandOver,
    HandOverReason,
    Reply,
    ReplyKind,
)
from ...schemas.result import ModelRef, Source
from .policy import IntentRule, Policy, fill, fill_fields

GIVE_BACK: Final = ("handover", "ended")
"""In a turn's metadata: the person has done their part, the agent answers again."""
ACTION_TEXT_CHARACTERS: Final = 4000


class Heard(NamedTuple):
    """A turn as it was received."""

    agent: str
    conversation: str
    text: str
    request_id: str
    prediction_id: str
    source: Source
    metadata: dict[str, str]


class Step(NamedTuple):
    """What comes of a turn."""

    state: ConversationState
    reply: Reply
    actions: list[Action]
    handover: HandOver | None


def applied(state: ConversationState | None, turn: Heard) -> Literal["last", "older"] | None:
    """Say whether a turn is the last one that the state knows of, one before it, or (None) a new one.

    It is known by its id, and without one by its place: offsets of a partition grow. A time later than that of every turn
    before, at a lower offset, means that the topic was made anew.
    """
    if state is None:
        return None
    ids = [exchange.id for exchange in state.turns]
    if turn.prediction_id in ids:
        return "last" if turn.prediction_id == ids[-1] else "older"
    here, last = turn.source, state.source
    same_log = (here.topic, here.partition) == (last.topic, last.partition) and here.timestamp <= _newest(state)
    return "older" if same_log and here.offset <= last.offset else None


def _newest(state: ConversationState) -> int:
    return max(state.newest, state.source.timestamp)


def again(state: ConversationState, turn: Heard) -> Step:
    """Return what came of the state's last turn, which was delivered again."""
    about = turn.agent, turn.request_id, turn.metadata
    return Step(state, state.reply(*about), state.actions, state.hand_over(*about))


def bounded(result: Step, turn: Heard) -> tuple[Step, bytes]:
    """Return what comes of a turn with a state that fits into a record, and that record's value.

    The oldest exchanges are let go for it. RecordError when the last one and its actions are too much by themselves: a
    turn that could not be repeated after a crash must not be answered.
    """
    while len(value := result.state.model_dump_json().encode()) > STATE_BYTES:
        turns = result.state.turns[1:]
        if not turns:
            raise RecordError(
                Reason.TOO_LARGE, f"the state after this turn has {len(value)} bytes: its actions are too much"
            )
        result = again(result.state.model_copy(update={"turns": turns}), turn)
    return result, value


def has_expired(timestamp: int, policy: Policy, now: int) -> bool:
    """Say whether a conversation whose last turn was at `timestamp` (ms, as `now`) starts anew."""
    return now - timestamp > policy.expiry_ms


def goes_to_person(state: ConversationState | None, turn: Heard, policy: Policy, now: int) -> bool:
    """Say whether a turn is handed on as it is: `step` then needs no prediction."""
    if state is None or not state.with_person or has_expired(state.source.timestamp, policy, now):
        return False
    name, value = GIVE_BACK
    return turn.metadata.get(name) != value


@dataclass
class _Mind:
    """What `step` makes up its mind about."""

    intent: str | None = None
    slots: dict[str, str] = field(default_factory=dict)
    asked: str | None = None
    misunderstood: int = 0
    understood: str | None = None
    kind: ReplyKind = ReplyKind.ANSWERED
    text: str = ""
    actions: list[Action] = field(default_factory=list)
    handover: HandOverReason | None = None


def step(
    state: ConversationState | None,
    turn: Heard,
    prediction: Prediction | None,
    policy: Policy,
    now: int,
    *,
    before: int = 0,
) -> Step:
    """Answer a turn that is new (see `applied`). `now` in milliseconds since 1970.

    Without a prediction the turn goes to a person (see `goes_to_person`). `before` counts the turns of a conversation
    whose state is lost.
    """
    number = (state.number if state else before) + 1
    newest = max(turn.source.timestamp, _newest(state) if state else 0)
    if state is not None and has_expired(state.source.timestamp, policy, now):
        state = None
    mind = _with_person(state, policy) if prediction is None else _mind(state, turn, prediction, policy)
    after = ConversationState(
        conversation=turn.conversation,
        number=number,
        source=turn.source,
        newest=newest,
        turns=_remembered(state, turn, mind, policy),
        intent=mind.intent,
        slots=mind.slots,
        asked=mind.asked,
        misunderstood=mind.misunderstood,
        with_person=mind.handover is not None,
        kind=mind.kind,
        model=None if prediction is None else ModelRef(name=prediction.model[0], version=prediction.model[1]),
        actions=mind.actions,
        handover=mind.handover,
    )
    return again(after, turn)


def _remembered(state: ConversationState | None, turn: Heard, mind: _Mind, policy: Policy) -> list[Exchange]:
    this = Exchange(
        id=turn.prediction_id,
        timestamp=turn.source.timestamp,
        text=turn.text[:TURN_CHARACTERS],
        reply=mind.text[:REPLY_CHARACTERS],
        intent=mind.understood,
    )
    return [*(state.turns if state else ()), this][-policy.remember_turns :]


def _with_person(state: ConversationState | None, policy: Policy) -> _Mind:
    said, reason = policy.handover.waiting, HandOverReason.CONTINUED
    mind = _Mind(text=said, kind=ReplyKind.WITH_PERSON, handover=reason)
    if state is not None:
        mind.intent, mind.slots = state.intent, state.slots
    return mind


def _mind(state: ConversationState | None, turn: Heard, prediction: Prediction, policy: Policy) -> _Mind:
    answer = prediction[policy.intent_task]
    spans = _spans(prediction[policy.entity_task]) if policy.entity_task else {}
    understood = _understood(answer, policy)
    mind = _Mind(understood=understood)
    pending, asked, carried = None, None, {}
    if state is not None:
        mind.intent, mind.misunderstood = state.intent, state.misunderstood
        carried = _carried(state, policy)
        if state.intent in policy.intents and state.asked in policy.intents[state.intent].needs:
            pending, asked = state.intent, state.asked
    found = _found(spans, policy, pending, asked)
    if understood is not None and understood != pending and asked not in found:
        pending, asked = understood, None
        found = _found(spans, policy, understood, None)
    mind.slots = {**carried, **found}
    if pending is not None and (asked is None or any(slot in found for slot in policy.intents[pending].needs)):
        mind.intent, mind.misunderstood = pending, 0
        _go_on(mind, turn, policy.intents[pending], policy)
    else:
        mind.asked = asked
        _not_understood(mind, answer, policy, first=state is None)
    if state is None and policy.greeting and mind.kind is not ReplyKind.GREETED:
        mind.text = f"{policy.greeting} {mind.text}"
    return mind


def _go_on(mind: _Mind, turn: Heard, rule: IntentRule, policy: Policy) -> None:
    """Ask for what is missing, or do what the intent is for."""
    for slot, question in rule.needs.items():
        if slot not in mind.slots:
            mind.kind, mind.asked, mind.text = ReplyKind.ASKED, slot, fill(question, mind.slots)
            return
    mind.asked = None
    if rule.to_person:
        mind.kind, mind.handover = ReplyKind.HANDED_OVER, HandOverReason.POLICY
    mind.text = fill(policy.handover.reply if rule.reply is None else rule.reply, mind.slots)
    known = {
        **mind.slots,
        "conversation": turn.conversation,
        "intent": mind.intent or "",
        "request_id": turn.request_id,
        "text": turn.text[:ACTION_TEXT_CHARACTERS],
    }
    for action in rule.action:
        value = {name: fill_fields(item, known) for name, item in action.fields.items()}
        mind.actions.append(Action(topic=action.topic, value=value))


def _not_understood(mind: _Mind, answer: Output, policy: Policy, *, first: bool) -> None:
    rules = policy.handover
    if first and policy.greeting:
        mind.kind, mind.text = ReplyKind.GREETED, policy.greeting
        return
    mind.misunderstood += 1
    if mind.misunderstood >= rules.after:
        mind.handover = HandOverReason.NOT_UNDERSTOOD
    # Of a turn that answers a question the intent says little: "20 quid" has none.
    elif mind.asked is None and answer["score"] < rules.below and answer["reason"] != "out_of_scope":
        mind.handover = HandOverReason.LOW_CONFIDENCE
    if mind.handover is not None:
        mind.kind, mind.text = ReplyKind.HANDED_OVER, rules.reply
        mind.asked, mind.misunderstood = None, 0
        return
    mind.kind, mind.text = ReplyKind.NOT_UNDERSTOOD, policy.default
    if mind.asked is not None and mind.intent is not None:
        question = policy.intents[mind.intent].needs.get(mind.asked)
        if question is not None:
            mind.text = f"{policy.again} {fill(question, mind.slots)}"


def _understood(answer: Output, policy: Policy) -> str | None:
    label: str | None = answer["label"]
    return label if label in policy.intents and answer["score"] >= policy.min_score else None


def _carried(state: ConversationState, policy: Policy) -> dict[str, str]:
    """Return the slots that go on: those that some intent needs, less what an intent that is done with forgets."""
    known = policy.needed
    rule = policy.intents.get(state.intent) if state.intent is not None else None
    if rule is not None and state.kind in {ReplyKind.ANSWERED, ReplyKind.HANDED_OVER}:
        known -= set(rule.forget)
    return {slot: value for slot, value in state.slots.items() if slot in known}


def _spans(output: Output) -> dict[str, list[str]]:
    """Return label to the texts of its spans, in their order."""
    found: dict[str, list[str]] = {}
    for span in output["spans"]:
        found.setdefault(span["label"], []).append(span["text"][:SLOT_CHARACTERS])
    return found


def _found(spans: Mapping[str, list[str]], policy: Policy, intent: str | None, asked: str | None) -> dict[str, str]:
    """Return the slots that a turn fills.

    Each intent's slots take the spans of their label in turn, the slot that was asked for first. Where two intents
    disagree about a slot, the one that is pursued is right.
    """
    found: dict[str, str] = {}
    for name in sorted(policy.intents, key=lambda name: name == intent):
        needs = list(policy.intents[name].needs)
        if name == intent and asked in needs:
            needs.sort(key=lambda slot: slot != asked)
        taken: dict[str, int] = {}
        for slot in needs:
            label = policy.label_of(slot)
            place = taken.get(label, 0)
            if place < len(spans.get(label, ())):
                found[slot] = spans[label][place]
                taken[label] = place + 1
    return found
