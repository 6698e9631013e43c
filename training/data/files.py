"""The formats of data files: which function reads which, by the recipe's `format` or by the file's suffix."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ...runtime.errors import SetupError
from ..recipe import Reading
from .conll import read_conll
from .delimited import read_delimited
from .doccano import read_doccano
from .json_rows import read_json, read_json_lines
from .label_studio import read_label_studio
from .opening import suffix_of
from .row import Row
from .spacy_json import read_spacy

ReadRows = Callable[[Path, Reading], Iterator[Row]]
"""Yields the rows of a file in its order, each with its place; SetupError in one line for what cannot be read."""
FORMATS: Final[dict[str, ReadRows]] = {
    "csv": read_delimited,
    "tsv": read_delimited,
    "json": read_json,
    "jsonl": read_json_lines,
    "conll": read_conll,
    "label_studio": read_label_studio,
    "doccano": read_doccano,
    "spacy": read_spacy,
}
"""By the name that a recipe writes as `format`. A new format is one file with its function, and one line here."""
BY_SUFFIX: Final = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".conll": "conll"}
"""The format of a file where the recipe names none; any other suffix is JSON lines."""


def read_rows(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield the rows of a file by its format. SetupError for a name that is no format."""
    name = reading.format or BY_SUFFIX.get(suffix_of(path), "jsonl")
    if name not in FORMATS:
        raise SetupError(f"{path}: unknown format {name!r}; expected one of {', '.join(sorted(FORMATS))}")
    return FORMATS[name](path, reading)
