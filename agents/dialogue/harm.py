"""What a turn or a reply is stopped for: a phrase of the policy's lists, or a label of the filter task. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from ...runtime.agent.prediction import Output
from ...schemas.dialogue import TURN_CHARACTERS, Stopped, WordingReason
from .policy import Policy


class Harm(NamedTuple):
    """A text that is stopped, and what that means for the wording of the reply."""

    stopped: Stopped
    reason: WordingReason


def find_harm(text: str, outputs: Mapping[str, Output], policy: Policy) -> Harm | None:
    """Return what a text is stopped for, None if nothing; `outputs` are those of the model for it.

    Of several labels one that goes to a person comes first, then those of phrases.
    """
    found = [(label, WordingReason.STOP_WORD) for label in policy.phrases.find_labels(text)]
    if policy.filter is not None:
        found += [(each["label"], WordingReason.FILTERED) for each in outputs[policy.filter]["labels"]]
    if not found:
        return None
    label, reason = next((each for each in found if each[0] in policy.handover.filtered), found[0])
    return Harm(Stopped(text=text[:TURN_CHARACTERS], reason=label), reason)
