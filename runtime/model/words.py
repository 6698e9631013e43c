"""Words of a text and of its spans, by the text alone: the same for every tokenizer. Pure.

Blanks and punctuation separate words; a punctuation mark is a word of its own, and so is each character of a script
without blanks. Control and zero-width characters belong to no word and separate none, as BERT's normaliser drops them.
"""

import unicodedata
from bisect import bisect_left, bisect_right
from typing import Final

_ASCII_SYMBOLS: Final = frozenset("$+<=>^`|~")
# Scripts without blanks between words, as ranges of code points.
_UNSPACED: Final = (
    (0x0E01, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),
    (0x20000, 0x323AF),
)
_UNSPACED_STARTS: Final = [start for start, _ in _UNSPACED]
_MARKS: Final = frozenset({"Mn", "Me", "Mc"})


def is_blank(character: str) -> bool:
    """Return whether nothing of a character is seen: white space, control and format characters (zero-width ones, say)."""
    return character.isspace() or unicodedata.category(character) in {"Cc", "Cf"}


def trim_span(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Return a span without blanks at its ends and with the combining marks that follow it; None if nothing is left."""
    while start < end and is_blank(text[start]):
        start += 1
    while end > start and is_blank(text[end - 1]):
        end -= 1
    return (start, extend_over_marks(text, end)) if start < end else None


def extend_over_marks(text: str, end: int) -> int:
    """Return `end` moved past following combining marks: normalisers strip accents, and a span must not split one off."""
    while end < len(text) and unicodedata.category(text[end]) in {"Mn", "Me"}:
        end += 1
    return end


def split_words(text: str) -> list[tuple[int, int]]:
    """Return start and end of each word in code points, in the order of the text."""
    words: list[tuple[int, int]] = []
    grows = False  # whether a letter continues the last word
    for at, character in enumerate(text):
        category = unicodedata.category(character)
        if character.isspace():
            grows = False
        elif category in {"Cc", "Cf"}:
            continue
        elif category in _MARKS and words and words[-1][1] == at:
            words[-1] = words[-1][0], at + 1
        elif _stands_alone(character, category):
            words.append((at, at + 1))
            grows = False
        elif grows:
            words[-1] = words[-1][0], at + 1
        else:
            words.append((at, at + 1))
            grows = True
    return words


def _stands_alone(character: str, category: str) -> bool:
    if category.startswith("P") or character in _ASCII_SYMBOLS:
        return True
    number = ord(character)
    place = bisect_right(_UNSPACED_STARTS, number) - 1
    return place >= 0 and number <= _UNSPACED[place][1]


def find_words(words: list[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """Return the numbers of the first and the last word that a span touches by a character; None if it touches none."""
    first = bisect_right([word_end for _, word_end in words], start)
    last = bisect_left([word_start for word_start, _ in words], end) - 1
    return (first, last) if first <= last else None
