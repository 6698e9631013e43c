"""When two texts count as one: their near form is the same."""

import unicodedata
from collections.abc import Iterable
from hashlib import blake2b


def near_form(text: str) -> bytes:
    """Return what is the same for texts that differ in case, blanks or the form of their letters (NFKC) only."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).encode()


def near_id(near: bytes) -> bytes:
    """Return 16 bytes that are equal for equal near forms."""
    return blake2b(near, digest_size=16).digest()


def first_spellings(texts: Iterable[str]) -> list[str]:
    """Return the first of the texts that have one near form."""
    found: dict[bytes, str] = {}
    for text in texts:
        found.setdefault(near_form(text), text)
    return [*found.values()]
