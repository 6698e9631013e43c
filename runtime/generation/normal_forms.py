"""Unicode's normal forms, in time that is in proportion to the text, and characters that nobody sees. Pure."""

import re
import unicodedata
from typing import Final, Literal

_SIGN: Final = r"(?:[^\w\s\x00-\x7f]|[\uff9e\uff9f])"
"""All that combining marks may be, and symbols beyond ASCII."""
_SURPLUS: Final = re.compile(rf"({_SIGN}{{30}}){_SIGN}+")
"""30 combining marks in a row are the most of Unicode's stream-safe text format (UAX 15)."""
INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
"""Control characters but for white space, and the property Default_Ignorable_Code_Point of Unicode (DerivedCoreProperties.txt,
16.0): soft hyphens, joiners, directions, fillers, variation selectors, tags.
"""


def normalise(form: Literal["NFC", "NFKC"], text: str) -> str:
    """Return a text in a normal form, of 30 or more combining marks or symbols in a row the first 30.

    `unicodedata` sorts combining marks by insertion: a megabyte of two kinds by turns would take minutes.
    """
    return text if text.isascii() else unicodedata.normalize(form, _SURPLUS.sub(r"\1", text))


def plain_form(text: str) -> str:
    """Return a text without characters that nobody sees, and with one form of letters that look alike (NFKC)."""
    return normalise("NFKC", INVISIBLE.sub("", text))
