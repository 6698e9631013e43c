"""Phrases that stop a text: a list for each label, beside the filter of a model. Pure, except for reading the file of a policy."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, StringConstraints, ValidationInfo

from ....runtime.generation.normal_forms import plain_form
from ....runtime.settings.yaml_file import NotYaml, read_yaml

PART: Final = 8_000
"""So many characters of a text, and of its plain form, are looked at in one go, a few milliseconds."""
_MOST: Final = 200
"""White space between two words of a phrase, and letters that `*` stands for, at most."""
FOLDER = "folder"
"""In the context of validation: where relative paths begin."""


def _check_phrase(phrase: str) -> str:
    # `*` alone would stop every text.
    if not any(character.isalnum() for character in phrase):
        raise ValueError(f"expected a phrase with a letter or digit, found {phrase!r}")
    return phrase


Phrase = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_check_phrase)]


def _read_phrases(value: Any, info: ValidationInfo) -> Any:
    """Return the content of a file of phrases that a policy names."""
    if not isinstance(value, str) or not info.context:
        return value
    path = Path(info.context[FOLDER]) / value
    try:
        return read_yaml(path.read_text(encoding="utf-8"))[1]
    except (OSError, UnicodeDecodeError, NotYaml) as error:
        raise ValueError(f"{path} cannot be read as lists of phrases: {type(error).__name__}") from None


PhraseLists = Annotated[dict[str, list[Phrase]], BeforeValidator(_read_phrases)]
"""Phrases by the label that they mean, or the path of a file with them."""


class Phrases:
    """Finds phrases: in any letter case, between borders of words, a blank as any white space, `*` as any ending of a word."""

    def __init__(self, lists: Mapping[str, list[str]]) -> None:
        plain = {label: [_plain(phrase).split() for phrase in phrases] for label, phrases in lists.items() if phrases}
        self._patterns = [(label, _compile(phrases)) for label, phrases in plain.items()]
        everything = [phrase for phrases in plain.values() for phrase in phrases]
        self._any = _compile(everything)
        self._longest = max(map(_measure, everything), default=0)

    def find_labels(self, text: str) -> list[str]:
        """Return the labels of all lists with a phrase of the text.

        Letter forms that look alike (full width, say) are the same, and characters that nobody sees are none.
        """
        return self.order(label for labels in self.search(text) for label in labels)

    def search(self, text: str) -> Iterator[list[str]]:
        """Yield the labels of each part of a text, in time that is in proportion to it; see `PART`."""
        before, border = "", 0
        for plain, is_last in _read_parts(text):
            part = before + plain
            yield self._search_part(part, border, is_last=is_last)
            # What may go on in the next part, and the character before it, which may be a border.
            before, border = part[-self._longest - 1 :], int(border or len(part) > self._longest + 1)

    def order(self, labels: Iterable[str]) -> list[str]:
        """Return labels once each, in the order of the lists."""
        found = {*labels}
        return [label for label, _ in self._patterns if label in found]

    def _search_part(self, part: str, begin: int, *, is_last: bool) -> list[str]:

        def is_in(pattern: re.Pattern[str]) -> bool:
            found = pattern.search(part, begin)
            # At the end of a part a word may go on; the next part has it again.
            return found is not None and (is_last or found.end() < len(part))

        return [label for label, pattern in self._patterns if is_in(pattern)] if is_in(self._any) else []


def is_one_part(text: str) -> bool:
    """Return whether a text is looked at in one go."""
    return len(text) <= PART and len(_plain(text)) <= PART


def _read_parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a text's plain form, and whether one is the last. A character may become 18."""
    begin = 0
    for end in _find_seams(text):
        plain = _plain(text[begin:end])
        for at in range(0, len(plain) or 1, PART):
            yield plain[at : at + PART], end == len(text) and at + PART >= len(plain)
        begin = end


def _find_seams(text: str) -> Iterator[int]:
    """Yield where a text may be cut before its plain form is made."""
    begin = 0
    while begin < len(text) - PART:
        begin = _find_seam(text, begin)
        yield begin
    yield len(text)


def _find_seam(text: str, begin: int) -> int:
    """Return the last place before white space, else before another ASCII character: others may melt with the one before."""
    places = range(begin + PART, begin + PART // 2, -1)
    kinds: tuple[Callable[[str], bool], ...] = (str.isspace, _is_ascii)
    return next((place for is_kind in kinds for place in places if is_kind(text[place])), begin + PART)


def _is_ascii(character: str) -> bool:
    return character.isascii() and character.isprintable()


def _plain(text: str) -> str:
    """Return a text without letter case, invisible characters and other forms of letters."""
    return plain_form(text).casefold()


def _measure(phrase: list[str]) -> int:
    """Return how many characters of a text a phrase may stretch over."""
    return sum(len(word) + _MOST * (1 + word.count("*")) for word in phrase)


def _compile(phrases: list[list[str]]) -> re.Pattern[str]:
    blank, ending = rf"\s{{1,{_MOST}}}", rf"\w{{0,{_MOST}}}"
    found = (blank.join(re.escape(word).replace(r"\*", ending) for word in each) for each in phrases)
    return re.compile(rf"(?<!\w)(?:{'|'.join(found) or '(?!)'})(?!\w)")
