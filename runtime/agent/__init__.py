"""What users write: agents, handlers and how they are found and routed to."""

from ..wire.message import Publish
from ..wire.request import Incoming
from .agent import Agent, Decision, agent, answer
from .handler import Context, Handler, Predicts, Restore, Served
from .prediction import Output, Prediction

__all__ = [
    "Agent",
    "Context",
    "Decision",
    "Handler",
    "Incoming",
    "Output",
    "Prediction",
    "Predicts",
    "Publish",
    "Restore",
    "Served",
    "agent",
    "answer",
]
