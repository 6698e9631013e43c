"""Feedback: checks and counts people's feedback on predictions, and the command that publishes it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import FeedbackAgent, FeedbackOptions

__all__ = ["FeedbackAgent", "FeedbackOptions"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import agent  # noqa: PLC0415  # the command line lists our commands without loading the agent

    return getattr(agent, name)
