"""Which slots a turn fills: the spans of entities, shared out among the needs of the intents. Pure."""

from collections.abc import Mapping

from ....runtime.agent.prediction import Output
from ....schemas.dialogue import SLOT_CHARACTERS
from ..policy.policy import Policy


def group_spans(output: Output) -> dict[str, list[str]]:
    """Return the texts of the spans by label, in their order."""
    found: dict[str, list[str]] = {}
    for span in output["spans"]:
        found.setdefault(span["label"], []).append(span["text"][:SLOT_CHARACTERS])
    return found


def find_slots(spans: Mapping[str, list[str]], policy: Policy, intent: str | None, asked: str | None) -> dict[str, str]:
    """Return the slots that a turn fills.

    Each intent's slots take the spans of their label in order, the asked slot first. Where two intents disagree about a
    slot, the pursued one takes precedence.
    """
    found: dict[str, str] = {}
    for name in sorted(policy.intents, key=lambda name: name == intent):
        needs = list(policy.intents[name].needs)
        if name == intent and asked in needs:
            needs.sort(key=lambda slot: slot != asked)
        taken: dict[str, int] = {}
        for slot in needs:
            label = policy.label_of(slot)
            index = taken.get(label, 0)
            if index < len(spans.get(label, ())):
                found[slot] = spans[label][index]
                taken[label] = index + 1
    return found
