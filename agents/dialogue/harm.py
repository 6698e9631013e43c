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
    """Return what a text is stopped for, None if nothing; `outputs` are those of the model for it."""
    label, reason = policy.phrases.find_label(text), WordingReason.STOP_WORD
    if label is None and policy.filter is not None:
        label, reason = next((each["label"] for each in outputs[policy.filter]["labels"]), None), WordingReason.FILTERED
    return None if label is None else Harm(Stopped(text=text[:TURN_CHARACTERS], reason=label), reason)
