"""Phrases that stop a text: a list for each label, beside the filter of a model. Pure, except for reading the file of a policy."""

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, StringConstraints, ValidationInfo

from ...runtime.settings.yaml_file import NotYaml, read_yaml

_INVISIBLE: Final = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
"""Characters of format: soft hyphens, joiners, directions."""
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
        self._patterns = [(label, _compile(phrases)) for label, phrases in lists.items() if phrases]

    def find_labels(self, text: str) -> list[str]:
        """Return the labels of all lists with a phrase of the text.

        Letter forms that look alike (full width, say) are the same, and characters that nobody sees are none.
        """
        plain = _plain(text)
        return [label for label, pattern in self._patterns if pattern.search(plain)]


def _plain(text: str) -> str:
    return text if text.isascii() else _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def _compile(phrases: list[str]) -> re.Pattern[str]:
    words = (_plain(phrase).split() for phrase in phrases)
    found = (r"\s+".join(re.escape(word).replace(r"\*", r"\w*") for word in each) for each in words)
    return re.compile(rf"(?<!\w)(?:{'|'.join(found)})(?!\w)", re.IGNORECASE)
