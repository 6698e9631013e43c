"""What a reply says, as acts: those that a text of the policy names, else those of its place. Pure."""

from collections.abc import Iterable

from ...schemas.acts import Act, ActName
from .policy import IntentRule, Policy
from .sayings import Words


def greeting_acts(saying: Words) -> list[Act]:
    return saying.acts or [Act(act=ActName.GREET)]


def not_understood_acts(saying: Words) -> list[Act]:
    return saying.acts or [Act(act=ActName.NOT_UNDERSTOOD)]


def question_acts(saying: Words, intent: str, slot: str) -> list[Act]:
    """Return the acts of the question for a slot."""
    return saying.acts or [Act(act=ActName.REQUEST, slot=slot, intent=intent)]


def answer_acts(saying: Words, intent: str, rule: IntentRule) -> list[Act]:
    """Return the acts of the reply when all slots of an intent are filled: done, where it has an action, else said."""
    act = ActName.NOTIFY_SUCCESS if rule.action else ActName.INFORM
    return saying.acts or [Act(act=act, intent=intent), *_inform(saying.slots)]


def hand_over_acts(saying: Words, intent: str | None = None) -> list[Act]:
    """Return the acts of a hand-over; `intent`: the one that the policy hands over."""
    return saying.acts or [Act(act=ActName.HAND_OVER, intent=intent), *_inform(saying.slots)]


def list_replies(policy: Policy) -> Iterable[tuple[Words, list[Act]]]:
    """Yield every text of the policy with its acts: what a model is to word."""
    if policy.greeting is not None:
        yield policy.greeting, greeting_acts(policy.greeting)
    yield policy.default, not_understood_acts(policy.default)
    yield policy.again, not_understood_acts(policy.again)
    for intent, rule in policy.intents.items():
        for slot, question in rule.needs.items():
            yield question, question_acts(question, intent, slot)
        if rule.reply is not None:
            acts = hand_over_acts(rule.reply, intent) if rule.to_person else answer_acts(rule.reply, intent, rule)
            yield rule.reply, acts
    for saying in (policy.handover.reply, policy.handover.waiting):
        yield saying, hand_over_acts(saying)


def _inform(slots: Iterable[str]) -> Iterable[Act]:
    return (Act(act=ActName.INFORM, slot=slot) for slot in slots)
