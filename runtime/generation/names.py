"""Reads turns without what says who somebody is: their names, and whether they are he, she or they. English; pure.

Two turns that differ in a name or such a pronoun alone are the same text then. A name is known by its form, so that none is
read because a list or a model has missed it.
"""

import re
from collections.abc import Iterator
from typing import Final

from .normal_forms import normalise

NAME: Final = "{name}"
THEY: Final = "they"

_PRONOUNS: Final = "he|she|they|him|her|them|his|hers|their|theirs|himself|herself|themselves|themself"
_VERBS: Final = {"is": "are", "was": "were", "has": "have", "does": "do"}
_VERB: Final = rf"(?P<verb>{'|'.join(_VERBS)})(?P<negated>n['’]t)?"
_PRONOUN: Final = re.compile(
    rf"(?<![\w'’-])(?:{_PRONOUNS})(?:['’](?:s|re|ve|d|ll))?(?![\w-])(?:(?P<blank>\s+){_VERB}(?![\w'’-]))?",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"\{\w+\}|[^\W\d_]+(?:['’-][^\W\d_]+)*")
_BEGINNING: Final = re.compile(r"(?:^|[.!?:…]['\"”’)]*\s+|\n\s*)['\"“‘(]*$")
"""What stands before the first word of a sentence."""
_REACH: Final = 40
"""So many characters before a word are looked at: a turn may have a hundred thousand words."""
_ONE_NAME: Final = re.compile(rf"{re.escape(NAME)}(?:[\s.&-]+{re.escape(NAME)})+")
_NEVER_NAMES: Final = frozenset(
    [
        "i",
        "i'm",
        "i'll",
        "i've",
        "i'd",
        "ok",
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ]
)
_OPENERS: Final = frozenset(
    [
        "a",
        "about",
        "after",
        "again",
        "all",
        "already",
        "also",
        "am",
        "an",
        "and",
        "another",
        "any",
        "anybody",
        "anyone",
        "are",
        "as",
        "at",
        "be",
        "because",
        "been",
        "before",
        "both",
        "but",
        "by",
        "can",
        "can't",
        "cannot",
        "cant",
        "could",
        "did",
        "didn't",
        "do",
        "does",
        "doesn't",
        "don't",
        "dont",
        "each",
        "either",
        "every",
        "everybody",
        "everyone",
        "everything",
        "few",
        "for",
        "from",
        "good",
        "got",
        "had",
        "has",
        "have",
        "haven't",
        "hello",
        "help",
        "here",
        "hey",
        "hi",
        "how",
        "however",
        "if",
        "in",
        "is",
        "isn't",
        "it",
        "it's",
        "its",
        "just",
        "last",
        "let",
        "like",
        "me",
        "mine",
        "more",
        "most",
        "much",
        "my",
        "need",
        "never",
        "next",
        "no",
        "nobody",
        "none",
        "not",
        "nothing",
        "now",
        "of",
        "off",
        "oh",
        "on",
        "once",
        "one",
        "only",
        "or",
        "other",
        "our",
        "out",
        "over",
        "please",
        "since",
        "so",
        "some",
        "somebody",
        "someone",
        "something",
        "sorry",
        "still",
        "sure",
        "than",
        "thank",
        "thanks",
        "that",
        "that's",
        "the",
        "then",
        "there",
        "there's",
        "these",
        "they",
        "this",
        "those",
        "though",
        "thought",
        "through",
        "to",
        "today",
        "tomorrow",
        "too",
        "two",
        "under",
        "until",
        "up",
        "us",
        "very",
        "want",
        "was",
        "we",
        "we're",
        "well",
        "went",
        "were",
        "what",
        "what's",
        "when",
        "where",
        "where's",
        "which",
        "while",
        "who",
        "who's",
        "whose",
        "why",
        "will",
        "with",
        "without",
        "would",
        "yes",
        "yesterday",
        "yet",
        "you",
        "you're",
        "your",
        "yours",
    ]
)
"""Words that a sentence may begin with and that are no names."""


def mask_names(text: str) -> str:
    """Return a text with `{name}` for names, and `they` for he, she and they in all their forms.

    A name is a capitalised word, or several with blanks between them; at the beginning of a sentence one that is none of the
    words that often stand there. Slots, days and months stay. A name in lower case is not found.
    """
    text = mask_pronouns(text)
    parts, at = [], 0
    for found in _find_words(text):
        parts += [text[at : found.start()], NAME]
        at = found.end()
    return _ONE_NAME.sub(NAME, "".join([*parts, text[at:]]))


def mask_pronouns(text: str) -> str:
    """Return a text with `they` for he, she and they in all their forms; `is`, `was`, `has` and `does` behind them become plural."""
    return _PRONOUN.sub(_neutral, normalise("NFC", text))


def find_names(text: str) -> list[tuple[int, int]]:
    """Return start and end of each name that is sure by its form: with a capitalised word inside a sentence, and not all in
    capitals.
    """
    runs: list[list[re.Match[str]]] = []
    for found in _find_words(text):
        if runs and text[runs[-1][-1].end() : found.start()].isspace():
            runs[-1].append(found)
        else:
            runs.append([found])
    return [(run[0].start(), run[-1].end()) for run in runs if _is_sure(run, text)]


def _is_sure(run: list[re.Match[str]], text: str) -> bool:
    spelt = all(len(found[0]) == 1 or not found[0].isupper() for found in run)
    return spelt and not begins_sentence(text, run[-1].start())


def _find_words(text: str) -> Iterator[re.Match[str]]:
    return (found for found in _WORD.finditer(text) if _is_name(found[0], text, found.start()))


def begins_sentence(text: str, at: int) -> bool:
    """Return whether the word at a place of a text is the first of a sentence."""
    return _BEGINNING.search(text, max(at - _REACH, 0), at) is not None


def _is_name(word: str, text: str, at: int) -> bool:
    plain = word.lower().replace("’", "'")
    if not word[0].isupper() or plain in _NEVER_NAMES:
        return False
    return plain not in _OPENERS or not begins_sentence(text, at)


def _neutral(found: re.Match[str]) -> str:
    verb = found["verb"]
    if verb is None:
        return THEY
    return f"{THEY}{found['blank']}{_VERBS[verb.lower()]}{found['negated'] or ''}"
