"""The formats of data files: which function reads which, by the recipe's `format` or by the file's suffix."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ...runtime.errors import SetupError
from ..recipe.keys.reading import HUB, Reading
from .formats.conll import read_conll
from .formats.data_sets import read_data_set
from .formats.delimited import read_delimited
from .formats.dialogues import read_dialogues
from .formats.doccano import read_doccano
from .formats.json_rows import read_json, read_json_lines
from .formats.label_studio import read_label_studio
from .formats.lines import read_lines
from .formats.parquet import read_parquet
from .formats.sgd import read_sgd
from .formats.spacy_json import read_spacy
from .opening import find_file, suffix_of
from .row import Row

ReadRows = Callable[[Path, Reading], Iterator[Row]]
"""Yields the rows of a file in its order, each with its place; SetupError in one line for what cannot be read."""
FORMATS: Final[dict[str, ReadRows]] = {
    "csv": read_delimited,
    "tsv": read_delimited,
    "json": read_json,
    "jsonl": read_json_lines,
    "parquet": read_parquet,
    "datasets": read_data_set,
    "conll": read_conll,
    "label_studio": read_label_studio,
    "doccano": read_doccano,
    "spacy": read_spacy,
    "dialogues": read_dialogues,
    "sgd": read_sgd,
    "lines": read_lines,
}
"""By the name that a recipe writes as `format`. A new format is one file with its function, and one line here."""
BY_SUFFIX: Final = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".conll": "conll", ".parquet": "parquet"}
"""The format of a file where the recipe names none; any other suffix is JSON lines."""


KEYS: Final = frozenset({"split", "config", "revision", "delimiter", "quoting"})
"""Keys of a source that only some formats use."""
KEYS_OF_FORMATS: Final = {
    "csv": frozenset({"delimiter", "quoting"}),
    "tsv": frozenset({"delimiter", "quoting"}),
    "datasets": KEYS,
}


def find_source(folder: Path, name: str) -> Path:
    """Return what a recipe's `path` names: a data set of the hub as it is, a folder, or a file (`find_file`)."""
    if name.startswith(HUB):
        return Path(name)
    return folder / name if (folder / name).is_dir() else find_file(folder, name)


def find_format(path: Path, reading: Reading) -> str:
    """Return the format's name: the recipe's, else that of a data set, else by the suffix."""
    if is_data_set(path):
        return reading.format or "datasets"
    return reading.format or BY_SUFFIX.get(suffix_of(path), "jsonl")


def is_data_set(path: Path) -> bool:
    """Return whether it is no single file: of the hub, or a folder."""
    return str(path).startswith(HUB) or path.is_dir()


def refuse_unused_keys(path: Path, source: Reading, reading: Reading) -> None:
    """Raise SetupError for a key that a source sets itself and that its format, found by `reading`, does not use."""
    name = find_format(path, reading)
    if unused := next((key for key in unused_keys(source, name)), None):
        raise SetupError(f"{path}: the format {name} has no `{unused}`; leave it out")


def unused_keys(reading: Reading, name: str) -> list[str]:
    """Return the keys that are set and that a format does not use."""
    unused = sorted(KEYS - KEYS_OF_FORMATS.get(name, frozenset()))
    return [key for key in unused if getattr(reading, key) is not None]


def read_rows(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield the rows of a file by its format. SetupError for a name that is no format."""
    name = find_format(path, reading)
    if name not in FORMATS:
        raise SetupError(f"{path}: unknown format {name!r}; expected one of {', '.join(sorted(FORMATS))}")
    if is_data_set(path) and name != "datasets":
        raise SetupError(f"{path}: a data set has no format {name!r}; leave `format` out")
    return FORMATS[name](path, reading)
