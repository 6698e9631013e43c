"""What a generated reply must not state by itself: numbers, amounts, dates, durations and addresses. English; pure.

Such facts stand in slots and constants of a policy, never in words of the model.
"""

import re
import unicodedata
from typing import Final

from ...schemas.acts import SLOT, SLOT_MARK
from .normal_forms import plain_form

_NUMBERS: Final = (
    "zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen"
    "|nineteen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty(?:-[a-z]+)?|hundreds?|thousands?|millions?|billions?|dozens?|half"
    "|quarters?|percent|per cent|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
    "|(?:thir|four|fif|six|seven|eigh|nine)teenth|(?:twen|thir)tieth"
)
_DAYS: Final = (
    "mondays?|tuesdays?|wednesdays?|thursdays?|fridays?|saturdays?|sundays?|january|february|april|june|july|august"
    "|september|october|november|december|today|tomorrow|tonight|yesterday|noon|midnight|weekends?|o'clock"
)
# In lower case these are other words; `May I` is a question.
_CAPITALISED_DAYS: Final = (
    "May(?! (?:I|we|you)\\b)|March|Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun|Jan|Feb|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec"
)
_DURATION: Final = (
    r"(?:an?|one|few|several|some|couple of|same|this|next|last|every|per)\s+"
    r"(?:(?:working|business|banking|calendar|full|whole|single|few|couple of)\s+)*"
    r"(?:minute|hour|day|night|week|fortnight|month|year|morning|afternoon|evening)s?"
)
# `one` is a number before the word that it counts, and else a pronoun: `a new one is on its way`.
_ONE: Final = (
    r"(?<!no )one\s+(?!(?:is|are|was|were|will|would|can|could|should|has|have|had|does|did|to|for|that|which|who|whose|in|on"
    r"|at|of|as|or|and|if|when|where|because|so|from|by|with|without|about|after|before|until|than|but|now|then|here|there"
    r"|instead|only|already|too|again|please|you|we|i|they|he|she|it|your|our|my|their|the|an?|this|more|moment)\b)[^\W\d_]+"
)
_ADDRESS: Final = r"https?\b|www\b|://|\b[\w-]+\.[a-z]{2,}\b"
_FACT: Final = re.compile(rf"(?i:\b(?:{_DURATION}|{_ONE}|{_NUMBERS}|{_DAYS})\b)|\b(?:{_CAPITALISED_DAYS})\b|{_ADDRESS}")
_ADDRESS_PIECES: Final = ("http", "www", "://")


def find_fact(text: str) -> str | None:
    """Return the first fact of a text that is in none of its slots, None without one."""
    words = SLOT.sub(SLOT_MARK, text)
    for word in words.split():
        if any(map(_is_sign, word)):
            return word.strip(".,;:!?()\"'" + SLOT_MARK)
    found = _FACT.search(plain_form(words))
    return None if found is None else found[0]


def is_fact_piece(piece: str) -> bool:
    """Return whether a piece of a decoder's vocabulary holds a fact by itself.

    Of letters only a whole word does, one that begins with a blank: `ten` alone may go on as `tender`. A fact that is spelt
    in several pieces is found in the reply.
    """
    if any(map(_is_sign, piece)) or any(each in piece.lower() for each in _ADDRESS_PIECES):
        return True
    return piece.startswith(" ") and _FACT.fullmatch(piece[1:]) is not None


def _is_sign(character: str) -> bool:
    return character == "@" or character.isnumeric() or unicodedata.category(character) == "Sc"
