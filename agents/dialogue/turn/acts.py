"""What a reply says, as acts: those that a text of the policy names, else those of its place. Pure."""

from collections.abc import Iterator

from ....schemas.acts import Act, ActName
from ..policy.policy import IntentRule, Policy
from ..policy.sayings import Words


def greeting_acts(saying: Words) -> list[Act]:
    return saying.acts or [Act(act=ActName.GREET)]


def not_understood_acts(saying: Words) -> list[Act]:
    return saying.acts or [Act(act=ActName.NOT_UNDERSTOOD)]


def question_acts(saying: Words, intent: str, slot: str) -> list[Act]:
    """Return the acts of the question for a slot."""
    return saying.acts or [Act(act=ActName.REQUEST, slot=slot, intent=intent), *_inform(saying, intent)]


def answer_acts(saying: Words, intent: str, rule: IntentRule) -> list[Act]:
    """Return the acts of the reply when all slots of an intent are filled: done, where it has an action, else said."""
    if saying.acts:
        return saying.acts
    if rule.action:
        return [Act(act=ActName.NOTIFY_SUCCESS, intent=intent), *_inform(saying, intent)]
    return [*_inform(saying, intent)] or [Act(act=ActName.INFORM, intent=intent)]


def hand_over_acts(saying: Words, intent: str | None = None) -> list[Act]:
    """Return the acts of a hand-over; `intent`: the one that the policy hands over."""
    return saying.acts or [Act(act=ActName.HAND_OVER, intent=intent), *_inform(saying, intent)]


def waiting_acts(saying: Words) -> list[Act]:
    """Return the acts of the reply to a turn that was passed on to a person."""
    return saying.acts or [Act(act=ActName.NOTIFY_SUCCESS), Act(act=ActName.HAND_OVER), *_inform(saying, None)]


def list_replies(policy: Policy) -> Iterator[tuple[Words, list[Act]]]:
    """Yield every text of the policy with its acts: what a model is to word."""
    if policy.greeting is not None:
        yield policy.greeting, greeting_acts(policy.greeting)
    yield policy.default, not_understood_acts(policy.default)
    yield policy.again, not_understood_acts(policy.again)
    for intent, rule in policy.intents.items():
        for slot, question in rule.needs.items():
            yield question, question_acts(question, intent, slot)
        reply = policy.handover.reply if rule.reply is None else rule.reply
        yield reply, hand_over_acts(reply, intent) if rule.to_person else answer_acts(reply, intent, rule)
    yield policy.handover.reply, hand_over_acts(policy.handover.reply)
    yield policy.handover.waiting, waiting_acts(policy.handover.waiting)


def _inform(saying: Words, intent: str | None) -> Iterator[Act]:
    return (Act(act=ActName.INFORM, slot=slot, intent=intent) for slot in saying.slots)
