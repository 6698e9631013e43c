"""Phrases that stop a text: a list for each label, beside the filter of a model. Pure, except for reading the file of a policy."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, StringConstraints, ValidationInfo

from ...runtime.settings.yaml_file import NotYaml, read_yaml

Phrase = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
FOLDER = "folder"
"""In the context of validation: where relative paths begin."""


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

    def find_label(self, text: str) -> str | None:
        """Return the label of the first list with a phrase of the text, None without one."""
        return next((label for label, pattern in self._patterns if pattern.search(text)), None)


def _compile(phrases: list[str]) -> re.Pattern[str]:
    found = (r"\s+".join(re.escape(word).replace(r"\*", r"\w*") for word in phrase.split()) for phrase in phrases)
    return re.compile(rf"(?<!\w)(?:{'|'.join(found)})(?!\w)", re.IGNORECASE)
