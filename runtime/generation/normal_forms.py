"""Unicode's normal forms, in time that is in proportion to the text. Pure."""

import re
import unicodedata
from typing import Final, Literal

_SIGN: Final = r"(?:[^\w\s\x00-\x7f]|[\uff9e\uff9f])"
"""All that combining marks may be, and symbols beyond ASCII."""
_SURPLUS: Final = re.compile(rf"({_SIGN}{{30}}){_SIGN}+")
"""30 combining marks in a row are the most of Unicode's stream-safe text format (UAX 15)."""


def normalise(form: Literal["NFC", "NFKC"], text: str) -> str:
    """Return a text in a normal form, of 30 or more combining marks or symbols in a row the first 30.

    `unicodedata` sorts combining marks by insertion: a megabyte of two kinds by turns would take minutes.
    """
    return text if text.isascii() else unicodedata.normalize(form, _SURPLUS.sub(r"\1", text))
