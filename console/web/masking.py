"""Hides e-mail addresses, phone numbers, card numbers and IBANs in texts. Pure, in time linear in the text.

A masked text is as long as before, so that offsets of spans stay true. Cards are found by the Luhn check (ISO/IEC 7812-1),
IBANs by their remainder mod 97 (ISO 13616). What looks like a phone number and is another number is hidden too.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import accumulate
from typing import Final

from ...runtime.settings.console import Masked

DOT: Final = "•"
# Lengths are bounded, so that a long text without an address is read in linear time.
_EMAIL: Final = re.compile(r"[\w.+%'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_PHONE: Final = re.compile(
    r"(?<![\w+])(?:\+|00?)[ (]{0,2}\d(?:[ ()./-]{0,3}\d){5,14}(?!\d)|(?<!\w)\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)"
)
_DIGITS: Final = re.compile(r"(?<!\d)\d(?:[ .-]{0,2}\d){12,}")
_GROUP: Final = re.compile(r"\d+")
_CARD_DIGITS: Final = range(13, 20)
_IBAN: Final = re.compile(r"\b(?=([A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30})\b)")
_IBAN_CHARACTERS: Final = 15
"""Of the shortest, Norway's."""

Spans = Iterator[tuple[int, int]]


def mask(text: str, kinds: Collection[Masked]) -> str:
    """Return the text with what is of these kinds as dots, of the same length."""
    for kind, find in _FINDERS.items():
        if kind in kinds:
            text = _hide(text, find(text))
    return text


def _hide(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return the text with dots for the letters and digits of spans, which come by their starts and may overlap."""
    parts, at = [], 0
    for start, end in spans:
        if end > at:
            parts += [text[at:start], re.sub(r"[^\W_]", DOT, text[max(at, start) : end])]
            at = end
    return "".join([*parts, text[at:]])


def _find_emails(text: str) -> Spans:
    return (found.span() for found in _EMAIL.finditer(text))


def _find_phones(text: str) -> Spans:
    return (found.span() for found in _PHONE.finditer(text))


def _find_cards(text: str) -> Spans:
    """Yield where 13 to 19 digits pass the Luhn check: whole groups of digits, whatever groups stand beside them."""
    for run in _DIGITS.finditer(text):
        yield from _find_cards_of_run(text, run.start(), run.end())


def _find_cards_of_run(text: str, begin: int, end: int) -> Spans:
    groups = [found.span() for found in _GROUP.finditer(text, begin, end)]
    counts = [0, *accumulate(last - first for first, last in groups)]
    digits = [int(each) for each in text[begin:end] if each.isdecimal()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits]
    # Sums in which the digits at even places are doubled, and those at odd places.
    sums = [
        [
            0,
            *accumulate(
                two if at % 2 == parity else one for at, (one, two) in enumerate(zip(digits, doubled, strict=True))
            ),
        ]
        for parity in (0, 1)
    ]
    for first, (start, _) in enumerate(groups):
        for last in range(first, min(first + _CARD_DIGITS[-1], len(groups))):
            low, high = counts[first], counts[last + 1]
            # The last digit is not doubled, the one before it is.
            if high - low in _CARD_DIGITS and (sums[high % 2][high] - sums[high % 2][low]) % 10 == 0:
                yield start, groups[last][1]


def _find_ibans(text: str) -> Spans:
    """Yield IBANs, each the longest from where it starts: the next word may have been taken for its end."""
    for found in _IBAN.finditer(text):
        if length := _measure_iban(found[1]):
            yield found.start(), found.start() + length


def _measure_iban(raw: str) -> int:
    """Return the length of the longest beginning that is an IBAN, else 0.

    The check is of the characters behind the first four and then these, as a number whose letters are 10 to 35.
    """
    head = int("".join(str(int(each, 36)) for each in raw[:4]))
    length, characters, remainder = 0, 4, 0
    for at, each in enumerate(raw[4:], 5):
        if each in " -":
            continue
        value = int(each, 36)
        remainder = (remainder * (10 if value < 10 else 100) + value) % 97
        characters += 1
        if characters >= _IBAN_CHARACTERS and (remainder * 1_000_000 + head) % 97 == 1:
            length = at
    return length


_FINDERS: Final[dict[Masked, Callable[[str], Spans]]] = {
    "email": _find_emails,
    "iban": _find_ibans,
    "card": _find_cards,
    "phone": _find_phones,
}
