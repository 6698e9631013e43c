"""Words of a text and of its spans, by the text alone: the same for every tokenizer. Pure.

Blanks and punctuation separate words; a punctuation mark is a word of its own, and so is each character of a script
without blanks. Control and zero-width characters belong to no word and separate none, as BERT's normaliser drops them.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from enum import Enum, auto
from functools import lru_cache
from typing import Final

_ASCII_SYMBOLS: Final = frozenset("$+<=>^`|~")
_TAG_CHARACTERS: Final = frozenset(map(chr, range(0xE0020, 0xE0080)))
# Scripts without blanks between words, as ranges of code points. Others that have none (Javanese, Yi) are missing: models
# have learned their words by this list, so that another one needs a word rule of its own.
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
# Texts of Latin letters without control and zero-width characters and without combining marks.
_NOT_LATIN: Final = re.compile(r"[^\t-\r\x1c-\x7e\x85\xa0-\xac\xae-\u02ff]")
_LATIN_PUNCTUATION: Final = r"!-/:-@\[-`{-~\xa1\xa7\xab\xb6\xb7\xbb\xbf"
_LATIN_WORD: Final = re.compile(rf"[^\s{_LATIN_PUNCTUATION}]+|[{_LATIN_PUNCTUATION}]")
_UNSPACED_STARTS: Final = [start for start, _ in _UNSPACED]
_MARKS: Final = frozenset({"Mn", "Me", "Mc"})


def is_blank(character: str) -> bool:
    """Return whether nothing of a character is seen: white space, control and format characters (zero-width ones, say)."""
    return character.isspace() or unicodedata.category(character) in {"Cc", "Cf"}


def trim_blanks(text: str) -> str:
    """Return a text without blanks at its ends, for names that people type or paste.

    Tag characters stay: they tell the flags of England and Scotland apart.
    """
    start, end = 0, len(text)
    while start < end and is_blank(text[start]):
        start += 1
    while end > start and is_blank(text[end - 1]) and text[end - 1] not in _TAG_CHARACTERS:
        end -= 1
    return text[start:end]


def drop_invisible(text: str) -> str:
    """Return a text without characters that nobody sees and that separate nothing."""
    return "".join(each for each in text if each.isspace() or not is_blank(each) or each in _TAG_CHARACTERS)


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
    if _NOT_LATIN.search(text) is None:
        return [found.span() for found in _LATIN_WORD.finditer(text)]
    return _split_any(text)


def _split_any(text: str) -> list[tuple[int, int]]:
    """Split a text of any script, a character at a time: some eight times as slow."""
    words: list[tuple[int, int]] = []
    grows = False  # whether a letter continues the last word
    for at, character in enumerate(text):
        role = _role_of(character)
        if role is _Role.SEPARATES:
            grows = False
        elif role is _Role.INVISIBLE:
            continue
        elif role is _Role.MARK and words and words[-1][1] == at:
            words[-1] = words[-1][0], at + 1
        elif role is _Role.ALONE:
            words.append((at, at + 1))
            grows = False
        elif grows:
            words[-1] = words[-1][0], at + 1
        else:
            words.append((at, at + 1))
            grows = True
    return words


class _Role(Enum):
    """What a character does to words."""

    SEPARATES = auto()
    INVISIBLE = auto()
    MARK = auto()
    ALONE = auto()
    LETTER = auto()


@lru_cache(maxsize=8192)
def _role_of(character: str) -> _Role:
    category = unicodedata.category(character)
    if character.isspace():
        return _Role.SEPARATES
    if category in {"Cc", "Cf"}:
        return _Role.INVISIBLE
    if category in _MARKS:
        return _Role.MARK
    return _Role.ALONE if _is_punctuation(character) or _is_unspaced(character) else _Role.LETTER


def _is_punctuation(character: str) -> bool:
    return character in _ASCII_SYMBOLS or unicodedata.category(character).startswith("P")


def _is_unspaced(character: str) -> bool:
    number = ord(character)
    place = bisect_right(_UNSPACED_STARTS, number) - 1
    return place >= 0 and number <= _UNSPACED[place][1]


def align_words(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return (token, start, end) of each word that tokens read: the first token that touches it, and its place in the text.

    `offsets` are those of the tokens in the text, empty for special ones. Words that begin in one token are one, without the
    punctuation at its ends. A word that the tokens read in part ends where they end.
    """
    read = [(number, *place) for number, place in enumerate(offsets) if place[0] < place[1]]
    if not read:
        return []
    begin, end = read[0][1], max(token_end for _, _, token_end in read)
    part = text if begin == 0 and end == len(text) else text[begin:end]
    tokens = iter(read)
    number, token_start, token_end = next(tokens)
    aligned: list[tuple[int, int, int]] = []
    for place in split_words(part):
        start, stop = place[0] + begin, place[1] + begin
        while token_end <= start:
            # The last token ends where the text that was read does, unless a tokenizer has changed the order.
            number, token_start, token_end = next(tokens, (number, token_start, end))
        if token_start >= stop:  # dropped by the normaliser
            continue
        if aligned and aligned[-1][0] == number:
            aligned[-1] = number, *_merge(text, aligned[-1][1:], (start, stop))
        else:
            aligned.append((number, start, stop))
    return aligned


def _merge(text: str, first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    if _is_punctuation(text[second[0]]):
        return first
    return second if _is_punctuation(text[first[0]]) else (first[0], second[1])


def find_words(words: list[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """Return the numbers of the first and the last word that a span touches by a character; None if it touches none."""
    first = bisect_right([word_end for _, word_end in words], start)
    last = bisect_left([word_start for word_start, _ in words], end) - 1
    return (first, last) if first <= last else None
