"""What a turn or a reply is stopped for: a phrase of the policy's lists, or a label of the filter task. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ....runtime.agent.prediction import Output
from ....schemas.dialogue import TURN_CHARACTERS, Stopped, WordingReason
from ..policy.policy import Policy


class Harm(NamedTuple):
    """A text that is stopped, and what that means for the wording of the reply."""

    stopped: Stopped
    reason: WordingReason


def find_harm(
    text: str, outputs: Mapping[str, Output], policy: Policy, phrases: Sequence[str] | None = None
) -> Harm | None:
    """Return what a text is stopped for, None if nothing; `outputs` are those of the model for it,
    `phrases` the labels of the phrases in it; without them they are looked for.

    Of several labels one that goes to a person comes first, then those of phrases.
    """
    labels = policy.phrases.find_labels(text) if phrases is None else phrases
    found = [(label, WordingReason.STOP_WORD) for label in labels]
    if policy.filter is not None:
        found += [(each["label"], WordingReason.FILTERED) for each in outputs[policy.filter]["labels"]]
    if not found:
        return None
    label, reason = next((each for each in found if each[0] in policy.handover.filtered), found[0])
    return Harm(Stopped(text=text[:TURN_CHARACTERS], reason=label), reason)
