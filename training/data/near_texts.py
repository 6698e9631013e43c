"""When two texts count as one: their near form is the same."""

import unicodedata
from collections.abc import Iterable
from hashlib import blake2b

from ...runtime.model.inputs import Input


def near_form(given: Input) -> bytes:
    """Return what is the same for texts that differ in case, blanks or the form of their letters (NFKC) only.

    Two texts that are read together are compared as two: a near form has no line break.
    """
    return _near_form(given) if isinstance(given, str) else b"\n".join(map(_near_form, given[:2]))


def _near_form(text: str) -> bytes:
    return " ".join(_fold(text).split()).encode()


def near_characters(text: str) -> bytes:
    """Return what is the same for texts of which each character differs in case, kind of blank or NFKC only.

    Offsets into one of them hold in the others, which those of a near form do not.
    """
    return "\0".join(" " if character.isspace() else _fold(character) for character in text).encode()


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def near_id(near: bytes) -> bytes:
    """Return 16 bytes that are equal for equal near forms."""
    return blake2b(near, digest_size=16).digest()


def first_spellings(texts: Iterable[Input]) -> list[Input]:
    """Return the first of the texts that have one near form."""
    found: dict[bytes, Input] = {}
    for text in texts:
        found.setdefault(near_form(text), text)
    return [*found.values()]
