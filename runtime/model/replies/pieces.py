"""The pieces that replies are made of, as a model's manifest lists them: the labels of a task that generates. Pure."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .slot_table import MASKED

SLOT: Final = re.compile(r" ?\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BRACES: Final = frozenset("{}")


def join_pieces(pieces: Iterable[str]) -> str:
    """Return the reply that pieces make: the text of a reply counts as if a blank stood before it."""
    return "".join(pieces).removeprefix(" ")


def find_slots(labels: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each piece that is a slot, and the slot's name; `labels[0]` is the end."""
    for number, label in enumerate(labels):
        if number and (found := SLOT.fullmatch(label)):
            yield number, found[1]


def forbid_slots(labels: Sequence[str], allowed: Collection[str]) -> npt.NDArray[Any]:
    """Return what is added to the logits [V] so that a reply names only allowed slots.

    A brace is forbidden, too: a slot could be spelt with it, letter by letter.
    """
    forbidden = np.zeros(len(labels), np.float32)
    slots = dict(find_slots(labels))
    for number, label in enumerate(labels):
        if number in slots:
            forbidden[number] = 0 if slots[number] in allowed else MASKED
        elif number and _BRACES & set(label):
            forbidden[number] = MASKED
    return forbidden
