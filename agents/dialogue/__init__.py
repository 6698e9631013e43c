"""Dialogue: answers the turns of conversations by a policy, keeps their state and hands over to people."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import Dialogue
    from .options import DialogueOptions

__all__ = ["Dialogue", "DialogueOptions"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import agent, options  # noqa: PLC0415  # the command line lists our commands without loading the agent

    return agent.Dialogue if name == "Dialogue" else options.DialogueOptions
