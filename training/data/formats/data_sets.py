"""Data sets by name, through `datasets`: of the hub (`hub:OWNER/NAME`), or a folder in its form."""

import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from ....runtime.errors import SetupError
from ...recipe.keys.reading import HUB, Reading
from ..row import Row
from .delimited import QUOTINGS, refuse_merged_rows, refuse_repeated_header
from .parquet import NEEDED, ROWS_AT_ONCE, rows_of

SAVED: Final = ("state.json", "dataset_dict.json")
"""What `save_to_disk` leaves; such a folder is loaded in another way."""
OF_LOADING: Final = ("config", "revision", "delimiter", "quoting")
"""Keys of a recipe that say how a data set is made of its files: a saved one is made already."""


def read_data_set(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield the rows of a data set's split, with the names of labels instead of their numbers.

    SetupError where it cannot be loaded, and where `split` has to choose between several.
    """
    source = _load(path, reading)
    split = str(reading.split or source.split or "")
    features = source.features.to_dict() if source.features is not None else {}
    batches = source.with_format("arrow").iter(batch_size=ROWS_AT_ONCE)
    rows = rows_of(f"{path}{f' ({split})' if split else ''}", batches, features)
    made_of_csv = source.info.builder_name == "csv"
    yield from _check_csv_rows(rows, source.column_names, reading) if made_of_csv else rows


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
    saved = any((path / mark).is_file() for mark in SAVED)
    if saved and (
        key := next((key for key, value in reading if key in OF_LOADING and value not in {None, "minimal"}), "")
    ):
        raise SetupError(f"{path}: a data set that was saved to disk has no `{key}`; leave it out")
    if reading.revision is not None and not name.startswith(HUB):
        raise SetupError(f"{path}: only data sets of the hub have a `revision`; leave it out")
    try:
        if saved:
            found = datasets.load_from_disk(name)
        else:
            found = datasets.load_dataset(
                name.removeprefix(HUB),
                reading.config,
                split=reading.split,
                revision=reading.revision,
                **_csv_settings(reading),
            )
    except ValueError as error:
        if "doesn't have a" in str(error) and _csv_settings(reading):
            problem = "`delimiter` and `quoting` are for data sets of CSV files, which this one is not; leave them out"
            raise SetupError(f"{path}: {problem}") from None
        raise _cannot_load(path, error) from None
    except Exception as error:  # noqa: BLE001  (offline, unknown name, bad files: the library raises many classes)
        raise _cannot_load(path, error) from None
    return _choose_split(path, found, reading) if saved or isinstance(found, dict) else found


def _choose_split(path: Path, found: Any, reading: Reading) -> Any:
    """Return the split that the recipe names, or the only one, of what was loaded without choosing."""
    if not isinstance(found, dict):
        if reading.split not in {None, str(found.split)}:
            which = "of no name" if found.split is None else str(found.split)
            raise SetupError(f"{path}: holds one split ({which}), not {reading.split!r}; leave `split` out")
        return found
    if reading.split in found:
        return found[reading.split]
    if len(found) == 1 and reading.split is None:
        return next(iter(found.values()))
    problem = f"has no split {reading.split!r}" if reading.split else "has several splits"
    raise SetupError(f"{path}: {problem}; set `split` to one of {', '.join(found)}")


def _csv_settings(reading: Reading) -> dict[str, Any]:
    """Return the options for the CSV reader of `datasets`. Its readers of other formats refuse them."""
    settings: dict[str, Any] = {} if reading.delimiter is None else {"sep": reading.delimiter}
    return settings | ({} if reading.quoting is None else {"quoting": QUOTINGS[reading.quoting]})


def _check_csv_rows(rows: Iterable[Row], columns: list[str], reading: Reading) -> Iterator[Row]:
    """Yield rows that the library read from CSV, which takes more files for sound than ours. SetupError as in `delimited`."""
    delimiters = [reading.delimiter] if reading.delimiter else [",", "\t"]  # of .csv and .tsv
    for row in rows:
        cells = [*row.fields.values()]
        refuse_repeated_header(row.place, cells, columns)
        for number, cell in enumerate(cells):
            if reading.quoting is None and isinstance(cell, str) and ("\n" in cell or "\r" in cell):
                place = f"{row.place}, column {columns[number]!r}"
                for delimiter in delimiters:
                    refuse_merged_rows(place, cell, number, delimiter, len(columns))
        yield row


def _cannot_load(path: Path, error: Exception) -> SetupError:
    problem = " ".join(str(error).split())[:300]
    return SetupError(f"{path}: the data set cannot be loaded: {type(error).__name__}: {problem}")
