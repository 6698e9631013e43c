"""Murmura: asynchronous message-driven agents on Kafka, answered by one multitask transformer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .runtime.agent.agent import Agent, agent
    from .runtime.agent.handler import Handler
    from .runtime.errors import Retry
    from .runtime.serve import serve
    from .runtime.wire.message import Publish

__all__ = ["Agent", "Handler", "Publish", "Retry", "agent", "serve"]

_PLACES: Final = {
    "Agent": "agent.agent",
    "Handler": "agent.handler",
    "Publish": "wire.message",
    "Retry": "errors",
    "agent": "agent.agent",
    "serve": "serve",
}


def __getattr__(name: str) -> Any:
    """Hand a name on when it is asked for: whoever only reads results imports little."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".runtime.{_PLACES[name]}", __name__), name)
