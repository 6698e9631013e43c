"""Keeps a conversation on one side of an experiment. Pure."""

from collections.abc import Mapping

from ...schemas.dialogue import ConversationSide
from ...schemas.result import Variant
from .unit_assignment import RunningExperiment


def choose_conversation_side(
    kept: ConversationSide | None,
    experiment: RunningExperiment | None,
    conversation: str,
    metadata: Mapping[str, str],
) -> ConversationSide | None:
    """Return the side of a conversation's next turn; None without an experiment, or until its candidate is loaded here.

    `kept`: that of its state, unless it has expired. It stays while its experiment runs, also when the share is raised. A new
    one is that of the turn's unit; where each request is one, that is the conversation. Where a field of the metadata is the unit, and changes within the conversation, the side is that of the new
    unit from this turn on: a unit never sees two versions, and what it sees is counted for it.
    """
    if experiment is None:
        return None
    assignment = experiment.assignment
    unit = assignment.place_field(metadata)
    if kept is not None and kept.experiment == assignment.experiment and unit in (None, kept.unit):
        return kept
    if not experiment.is_loaded:
        return None
    side = assignment.choose_side(conversation.encode(), conversation, metadata)
    variant: Variant = "candidate" if side == "candidate" else "current"
    return ConversationSide(experiment=assignment.experiment, variant=variant, unit=unit)
