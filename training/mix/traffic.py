"""Texts drawn at random for review stand for traffic: most of them judge a retraining, some calibrate it.

What calibrates is no evidence in the gate: a threshold that was chosen on a text decides that text too well.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from ..data.example import Example
from ..data.near_texts import near_form
from ..ingest.files import SAMPLING_RATE

SHARE: Final = 0.2
"""Of the conversations drawn at random, whose texts calibrate."""
CONVERSATION: Final = "conversation"
"""Column with the id of a row's conversation, where no other is named: rows of one are no evidence of their own."""


def drawn_at_random(examples: Iterable[Example]) -> list[Example]:
    """Return the rows that ingest marked as drawn."""
    return [example for example in examples if example.meta.get(SAMPLING_RATE) is not None]


def may_calibrate(example: Example) -> bool:
    """Say whether a row drawn at random is one of those that may calibrate; for ever the same, and for a whole conversation."""
    unit = str(example.meta.get(CONVERSATION) or "").encode() or near_form(example.given)
    number = int.from_bytes(blake2b(unit, digest_size=8, person=b"calibrate").digest(), "big")
    return number < SHARE * 2**64
