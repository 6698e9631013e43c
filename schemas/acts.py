"""What a reply is to say: its acts, from a closed list, and the turns that it answers."""

import re
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_NAME: Final = "[A-Za-z_][A-Za-z0-9_]*"
SlotName = Annotated[str, StringConstraints(pattern=f"^{_NAME}$", max_length=100)]
"""A slot stands in replies and templates as `{NAME}`."""
SLOT: Final = re.compile(rf"\{{({_NAME})\}}")
"""A slot in a reply. Its name may be too long for a `SlotName`."""
SLOT_MARK: Final = "\ufffc"
"""Stands for a slot where the words of a reply are looked at alone; no letter, so that words end at it."""


class ActName(StrEnum):
    GREET = "greet"
    REQUEST = "request"
    """Ask for a slot."""
    INFORM = "inform"
    """Name a slot's value."""
    OFFER = "offer"
    """Propose a slot's value, or, with an intent, to do something."""
    CONFIRM = "confirm"
    """Ask whether a slot's value is right."""
    NOTIFY_SUCCESS = "notify_success"
    NOTIFY_FAILURE = "notify_failure"
    REQUEST_MORE = "request_more"
    """Ask whether there is anything else."""
    NOT_UNDERSTOOD = "not_understood"
    HAND_OVER = "hand_over"
    """Pass the conversation to a person."""
    GOODBYE = "goodbye"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Act(_Frozen):
    """One thing that a reply is to say. Values are no part of it: a reply names slots."""

    act: ActName
    slot: SlotName | None = None
    intent: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class Utterance(_Frozen):
    """What was said in one turn of a conversation, and by whom."""

    role: Literal["user", "agent"]
    text: str
