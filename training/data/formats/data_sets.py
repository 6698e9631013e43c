"""Data sets by name, through `datasets`: of the hub (`hub:OWNER/NAME`), or a folder in its form."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from ....runtime.errors import SetupError
from ...recipe.reading import HUB, Reading
from ..row import Row
from .parquet import NEEDED, ROWS_AT_ONCE, rows_of

SAVED: Final = ("state.json", "dataset_dict.json")
"""What `save_to_disk` leaves; such a folder is loaded in another way."""


def read_data_set(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield the rows of a data set's split, with the names of labels instead of their numbers.

    SetupError where it cannot be loaded, and where `split` has to choose between several.
    """
    source = _load(path, reading)
    split = str(reading.split or source.split or "")
    features = source.features.to_dict() if source.features is not None else {}
    batches = source.with_format("arrow").iter(batch_size=ROWS_AT_ONCE)
    yield from rows_of(f"{path}{f' ({split})' if split else ''}", batches, features)


def digest_data_set(path: Path, reading: Reading) -> str:
    """Return the SHA-256 of the rows of a split, as hex."""
    digest = sha256()
    for batch in _load(path, reading).with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
        digest.update(json.dumps(batch.to_pylist(), default=str, sort_keys=True).encode())
    return digest.hexdigest()


def _load(path: Path, reading: Reading) -> Any:
    try:
        import datasets  # noqa: PLC0415  (optional)
    except ModuleNotFoundError as error:
        raise SetupError(f"{path}: reading data sets needs {error.name}: {NEEDED}") from None
    datasets.disable_progress_bars()
    name = str(path)
    try:
        if any((path / mark).is_file() for mark in SAVED):
            found = datasets.load_from_disk(name)
            found = found[reading.split] if isinstance(found, dict) and reading.split in found else found
        else:
            found = datasets.load_dataset(
                name.removeprefix(HUB), reading.config, split=reading.split, revision=reading.revision
            )
    except Exception as error:  # noqa: BLE001  (offline, unknown name, bad files: the library raises many classes)
        raise SetupError(f"{path}: the data set cannot be loaded: {type(error).__name__}: {_one_line(error)}") from None
    if not isinstance(found, dict):
        return found
    if len(found) == 1 and reading.split is None:
        return next(iter(found.values()))
    problem = f"has no split {reading.split!r}" if reading.split else "has several splits"
    raise SetupError(f"{path}: {problem}; set `split` to one of {', '.join(found)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
