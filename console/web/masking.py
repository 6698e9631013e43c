"""Hides e-mail addresses, phone numbers, card numbers and IBANs in texts. Pure.

A masked text is as long as before, so that offsets of spans stay true. Cards are found by the Luhn check (ISO/IEC 7812-1),
IBANs by their remainder mod 97 (ISO 13616). What looks like a phone number and is another number is hidden too.
"""

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from ...runtime.settings.console import Masked

DOT: Final = "•"
_PATTERNS: Final[dict[Masked, re.Pattern[str]]] = {
    # Lengths are bounded, so that a long text without an address is read in linear time.
    "email": re.compile(r"[\w.+%'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"),
    "iban": re.compile(r"\b[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}\b"),
    "card": re.compile(r"(?<![\d])\d(?:[ -]?\d){12,18}(?!\d)"),
    "phone": re.compile(
        r"(?<![\w+])(?:\+|00?)[ (]{0,2}\d(?:[ ()./-]{0,3}\d){5,14}(?!\d)|(?<!\w)\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)"
    ),
}
_ORDER: Final[tuple[Masked, ...]] = ("email", "iban", "card", "phone")


def mask(text: str, kinds: Collection[Masked]) -> str:
    """Return the text with what is of these kinds as dots, of the same length."""
    for kind in _ORDER:
        if kind in kinds:
            text = _PATTERNS[kind].sub(partial(_hide, _CHECKS.get(kind)), text)
    return text


def _hide(find: Callable[[str], int] | None, found: re.Match[str]) -> str:
    raw = found[0]
    length = len(raw) if find is None else find(raw)
    return re.sub(r"[^\W_]", DOT, raw[:length]) + raw[length:]


def _find_card(raw: str) -> int:
    digits = [int(each) for each in raw if each.isdecimal()]
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return len(raw) if sum(doubled) % 10 == 0 else 0


def _find_iban(raw: str) -> int:
    """Return the length of the longest beginning that is an IBAN: the next word may have been taken for its end."""
    for end in range(len(raw), 14, -1):
        plain = re.sub(r"[ -]", "", raw[:end]).upper()
        if raw[end - 1].isalnum() and len(plain) >= 15:
            turned = plain[4:] + plain[:4]
            if int("".join(str(int(each, 36)) for each in turned)) % 97 == 1:
                return end
    return 0


_CHECKS: Final[dict[Masked, Callable[[str], int]]] = {"card": _find_card, "iban": _find_iban}
