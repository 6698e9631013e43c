"""The pieces that replies are made of, as a model's manifest lists them: the labels of a task that generates. Pure."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ....schemas.acts import SLOT
from .slot_table import MASKED

SLOT_PIECE: Final = re.compile(f" ?{SLOT.pattern}")
"""A slot as a piece of its own; its name is the group."""
_BRACES: Final = frozenset("{}")


def join_pieces(pieces: Iterable[str]) -> str:
    """Return the reply that pieces make: the text of a reply counts as if a blank stood before it."""
    return "".join(pieces).removeprefix(" ")


def find_slots(labels: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each piece that is a slot, and the slot's name; `labels[0]` is the end."""
    for number, label in enumerate(labels):
        if number and (found := SLOT_PIECE.fullmatch(label)):
            yield number, found[1]


def forbid_slots(labels: Sequence[str], allowed: Collection[str]) -> npt.NDArray[Any]:
    """Return what is added to the logits [V] so that a reply names only allowed slots; not to be written to.

    A brace is forbidden, too: a slot could be spelt with it, letter by letter.
    """
    return _forbid_slots(tuple(labels), frozenset(allowed))


@lru_cache(maxsize=256)  # a policy has few sets of slots, and a vocabulary thousands of pieces
def _forbid_slots(labels: tuple[str, ...], allowed: frozenset[str]) -> npt.NDArray[Any]:
    slots = dict(find_slots(labels))

    def is_forbidden(number: int) -> bool:
        return slots[number] not in allowed if number in slots else not _BRACES.isdisjoint(labels[number])

    return _forbid(is_forbidden(number) for number in range(len(labels)))


def forbid_pieces(labels: Sequence[str], is_forbidden: Callable[[str], bool]) -> npt.NDArray[Any]:
    """Return what is added to the logits [V] so that a reply has none of these pieces. Slots and the end are never among them."""
    slots = dict(find_slots(labels))
    return _forbid(number not in slots and is_forbidden(label) for number, label in enumerate(labels))


def _forbid(forbidden: Iterable[bool]) -> npt.NDArray[Any]:
    bias = np.where([*forbidden], MASKED, np.float32(0))
    bias[0] = 0
    bias.setflags(write=False)
    return bias
