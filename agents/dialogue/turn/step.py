"""One turn of a conversation: from the state before and the model's prediction to the state after. Pure.

It depends only on the turns, their timestamps and their predictions: a replay of the log gives the same states and
replies.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from ....runtime.agent.prediction import Output, Prediction
from ....schemas.acts import Act, ActName
from ....schemas.dialogue import (
    REPLY_CHARACTERS,
    TURN_CHARACTERS,
    Action,
    ConversationState,
    Exchange,
    HandOver,
    HandOverReason,
    Reply,
    ReplyKind,
    Wording,
)
from ....schemas.result import ModelRef, Source
from ..policy.policy import Policy
from ..policy.sayings import Words, fill_fields
from .acts import (
    answer_acts,
    greeting_acts,
    hand_over_acts,
    not_understood_acts,
    question_acts,
    waiting_acts,
)
from .draft import Brief, Draft, find_part
from .harm import Harm, find_harm
from .people import find_entities
from .slots import find_slots, group_spans

GIVE_BACK: Final = ("handover", "ended")
"""In a turn's metadata: the person is done, the agent answers again."""
ACTION_TEXT_CHARACTERS: Final = 4000


class ReceivedTurn(NamedTuple):
    """A turn as received."""

    agent: str
    conversation: str
    text: str
    request_id: str
    prediction_id: str
    source: Source
    metadata: dict[str, str]


class Step(NamedTuple):
    """The result of a turn, worded by templates."""

    state: ConversationState
    reply: Reply
    actions: list[Action]
    handover: HandOver | None
    brief: Brief | None = None
    """None where the template is sent."""
    score: float | None = None
    """Of the reply that the model worded, whether it is sent or not."""
    has_rule: bool = True
    """False where knowledge may answer: the policy has no rule for the turn, and no question is open."""


def classify_delivery(state: ConversationState | None, turn: ReceivedTurn) -> Literal["last", "older"] | None:
    """Return whether a turn is the last one in the state, an older one, or (None) a new one.

    It is recognised by its id, else by its offset. A lower offset with a timestamp later than every turn before means that
    the topic was recreated.
    """
    if state is None:
        return None
    ids = [exchange.id for exchange in state.turns]
    if turn.prediction_id in ids:
        return "last" if turn.prediction_id == ids[-1] else "older"
    source, last = turn.source, state.source
    same_log = (source.topic, source.partition) == (last.topic, last.partition) and source.timestamp <= _newest(state)
    return "older" if same_log and source.offset <= last.offset else None


def _newest(state: ConversationState) -> int:
    return max(state.newest, state.source.timestamp)


def replay_step(state: ConversationState, turn: ReceivedTurn) -> Step:
    """Return the result of the state's last turn, which was delivered again."""
    ids = turn.agent, turn.request_id, turn.metadata
    return Step(state, state.reply(*ids), state.actions, state.hand_over(*ids))


def has_expired(timestamp: int, policy: Policy, now: int) -> bool:
    """Return whether a conversation with its last turn at `timestamp` (ms, like `now`) has expired and starts again."""
    return now - timestamp > policy.expiry_ms


def goes_to_person(state: ConversationState | None, turn: ReceivedTurn, policy: Policy, now: int) -> bool:
    """Return whether a turn is passed on to a person unanswered: `step` then needs no prediction."""
    if state is None or not state.with_person or has_expired(state.source.timestamp, policy, now):
        return False
    name, value = GIVE_BACK
    return turn.metadata.get(name) != value


def step(
    state: ConversationState | None,
    turn: ReceivedTurn,
    prediction: Prediction | None,
    policy: Policy,
    now: int,
    *,
    min_score: float,
    before: int = 0,
    known: str | None = None,
    phrases: Sequence[str] | None = None,
) -> Step:
    """Answer a new turn (see `classify_delivery`). `now` is in milliseconds since 1970.

    Without a prediction the turn goes to a person (see `goes_to_person`). An intent with a score below `min_score` is not
    understood. `before` is the number of turns of a conversation with an unreadable state. `known` is what knowledge answers
    where the policy has no rule, `phrases` as in `find_harm`.
    """
    number = (state.number if state else before) + 1
    newest = max(turn.source.timestamp, _newest(state) if state else 0)
    if state is not None and has_expired(state.source.timestamp, policy, now):
        state = None
    harm = None
    if prediction is None:
        draft = _draft_for_person(state, policy)
    else:
        harm = find_harm(turn.text, prediction, policy, phrases)
        draft = _draft_answer(state, turn, prediction, policy, min_score, harm, known)
    text, brief = draft.fill(policy)[:REPLY_CHARACTERS], draft.brief(policy)
    after = ConversationState(
        conversation=turn.conversation,
        number=number,
        source=turn.source,
        newest=newest,
        turns=_append_exchange(state, turn, text, draft.understood, policy),
        intent=draft.intent,
        slots=draft.slots,
        asked=draft.asked,
        misunderstood=draft.misunderstood,
        with_person=draft.handover is not None,
        kind=draft.kind,
        model=None if prediction is None else name_model(prediction),
        actions=draft.actions,
        handover=draft.handover,
        acts=[act for _, acts in draft.said for act in acts],
        part=find_part(brief, brief.words if brief else "", text),
        wording=Wording.KNOWLEDGE if draft.is_known else Wording.TEMPLATE,
        wording_reason=harm.reason if harm and brief else None,
        truncated=prediction is not None and prediction.truncated,
        candidate_failed=prediction is not None and prediction.candidate_failed,
        stopped=harm.stopped if harm else None,
    )
    return replay_step(after, turn)._replace(brief=None if harm else brief, has_rule=draft.has_rule or harm is not None)


def name_model(prediction: Prediction) -> ModelRef:
    """Return the model that a prediction is of, and as what it answered."""
    name, version = prediction.model
    return ModelRef(name=name, version=version, variant=prediction.variant)


def _append_exchange(
    state: ConversationState | None, turn: ReceivedTurn, reply: str, understood: str | None, policy: Policy
) -> list[Exchange]:
    exchange = Exchange(
        id=turn.prediction_id,
        timestamp=turn.source.timestamp,
        text=turn.text[:TURN_CHARACTERS],
        reply=reply,
        intent=understood,
    )
    return [*(state.turns if state else ()), exchange][-policy.remember_turns :]


def _draft_for_person(state: ConversationState | None, policy: Policy) -> Draft:
    waiting = policy.handover.waiting
    draft = Draft(kind=ReplyKind.WITH_PERSON, handover=HandOverReason.CONTINUED)
    draft.said.append((waiting, waiting_acts(waiting)))
    if state is not None:
        draft.intent, draft.slots = state.intent, state.slots
    return draft


def _draft_answer(
    state: ConversationState | None,
    turn: ReceivedTurn,
    prediction: Prediction,
    policy: Policy,
    min_score: float,
    harm: Harm | None,
    known: str | None,
) -> Draft:
    answer = prediction[policy.intent_task]
    draft = Draft()
    pending, asked, carried = None, None, {}
    if state is not None:
        draft.intent, draft.misunderstood = state.intent, state.misunderstood
        carried = _carry_slots(state, policy)
        if state.intent in policy.intents and state.asked in policy.intents[state.intent].needs:
            pending, asked = state.intent, state.asked
    if harm is not None and harm.stopped.reason in policy.handover.filtered:
        draft.slots = carried
        return _hand_over(draft, policy, HandOverReason.FILTERED)
    found_in = find_entities(turn.text, prediction, policy, pending, asked) if policy.entity_task else None
    spans = group_spans(found_in) if found_in else {}
    # The intent of a turn that answers a question means little: "20 quid" has none.
    unsure = asked is None and _is_unsure(answer, policy)
    draft.understood = understood = None if unsure else _accept_intent(answer, policy, min_score)
    found = find_slots(spans, policy, pending, asked)
    clear = asked is None or (asked not in found and answer["score"] >= policy.switch_score)
    if understood is not None and understood != pending and clear:
        pending, asked = understood, None
        found = find_slots(spans, policy, understood, None)
    draft.slots = {**carried, **found}
    if pending is not None and (asked is None or any(slot in found for slot in policy.intents[pending].needs)):
        draft.intent, draft.misunderstood = pending, 0
        _pursue_intent(draft, turn, pending, policy)
    elif asked is None and known is not None:
        _answer_from_knowledge(draft, known)
    else:
        draft.asked, draft.has_rule = asked, asked is not None
        _handle_misunderstanding(draft, policy, first=state is None, unsure=unsure)
    if state is None and policy.greeting and draft.kind is not ReplyKind.GREETED:
        draft.said.insert(0, (policy.greeting, greeting_acts(policy.greeting)))
    return draft


def _pursue_intent(draft: Draft, turn: ReceivedTurn, intent: str, policy: Policy) -> None:
    """Ask for the next missing slot, or fulfil the intent: reply and actions."""
    rule = policy.intents[intent]
    for slot, question in rule.needs.items():
        if slot not in draft.slots:
            draft.kind, draft.asked = ReplyKind.ASKED, slot
            draft.said.append((question, question_acts(question, intent, slot)))
            return
    draft.asked = None
    reply = policy.handover.reply if rule.reply is None else rule.reply
    if rule.to_person:
        draft.kind, draft.handover = ReplyKind.HANDED_OVER, HandOverReason.POLICY
        draft.said.append((reply, hand_over_acts(reply, intent)))
    else:
        draft.said.append((reply, answer_acts(reply, intent, rule)))
    known = {
        **policy.constants,
        **draft.slots,
        "conversation": turn.conversation,
        "intent": draft.intent or "",
        "request_id": turn.request_id,
        "text": turn.text[:ACTION_TEXT_CHARACTERS],
    }
    for action in rule.action:
        value = {name: fill_fields(item, known) for name, item in action.fields.items()}
        draft.actions.append(Action(topic=action.topic, value=value))


def _answer_from_knowledge(draft: Draft, answer: str) -> None:
    """Say a reviewed answer, as it is."""
    draft.intent, draft.misunderstood, draft.is_known = None, 0, True
    template = answer.replace("{", "{{").replace("}", "}}")
    draft.said.append((Words.model_construct(template=template), [Act(act=ActName.INFORM)]))


def _handle_misunderstanding(draft: Draft, policy: Policy, *, first: bool, unsure: bool) -> None:
    rules = policy.handover
    if first and policy.greeting:
        draft.kind = ReplyKind.GREETED
        draft.said.append((policy.greeting, greeting_acts(policy.greeting)))
        return
    draft.misunderstood += 1
    if draft.misunderstood >= rules.after:
        draft.handover = HandOverReason.NOT_UNDERSTOOD
    elif unsure:
        draft.handover = HandOverReason.LOW_CONFIDENCE
    if draft.handover is not None:
        _hand_over(draft, policy, draft.handover)
        return
    draft.kind = ReplyKind.NOT_UNDERSTOOD
    question = None
    if draft.asked is not None and draft.intent is not None:
        question = policy.intents[draft.intent].needs.get(draft.asked)
    if question is None or draft.asked is None or draft.intent is None:
        draft.said.append((policy.default, not_understood_acts(policy.default)))
        return
    draft.said.append((policy.again, not_understood_acts(policy.again)))
    draft.said.append((question, question_acts(question, draft.intent, draft.asked)))


def _hand_over(draft: Draft, policy: Policy, reason: HandOverReason) -> Draft:
    draft.kind, draft.handover = ReplyKind.HANDED_OVER, reason
    draft.said.append((policy.handover.reply, hand_over_acts(policy.handover.reply)))
    draft.asked, draft.misunderstood = None, 0
    return draft


def _is_unsure(answer: Output, policy: Policy) -> bool:
    """Return whether the score is so low that a person takes over. Out of scope is an answer of its own."""
    below: bool = answer["score"] < policy.handover.below
    return below and answer["reason"] != "out_of_scope"


def _accept_intent(answer: Output, policy: Policy, min_score: float) -> str | None:
    label: str | None = answer["label"]
    return label if label in policy.intents and answer["score"] >= min_score else None


def _carry_slots(state: ConversationState, policy: Policy) -> dict[str, str]:
    """Return the slots to keep: those that an intent needs, without those that a fulfilled intent forgets."""
    known = policy.needed
    rule = policy.intents.get(state.intent) if state.intent is not None else None
    if rule is not None and state.kind in {ReplyKind.ANSWERED, ReplyKind.HANDED_OVER}:
        known -= set(rule.forget)
    return {slot: value for slot, value in state.slots.items() if slot in known}
