"""Parquet. Numbers of labels get the names that a file of the hub or of `datasets` carries for them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ....runtime.errors import SetupError
from ...recipe.keys.reading import Reading
from ..row import Row
from .class_names import has_names, name_numbers

ROWS_AT_ONCE: Final = 1000
NEEDED: Final = "pip install 'murmura[data]'"


def read_parquet(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield the rows of a file; a row's place is its number, from 1. SetupError for a damaged file."""
    try:
        import pyarrow as arrow  # noqa: PLC0415  (optional)
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SetupError(f"{path}: reading Parquet needs {error.name}: {NEEDED}") from None
    try:
        with parquet.ParquetFile(path) as file:
            features = read_features(file.schema_arrow.metadata)
            yield from rows_of(str(path), file.iter_batches(batch_size=ROWS_AT_ONCE), features)
    except (arrow.ArrowException, OSError, ValueError) as error:  # ValueError: a text that is not UTF-8
        problem = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SetupError(f"{path}: not a readable Parquet file: {problem}") from None


def read_features(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Return the descriptions of the columns that `datasets` writes into a file; nothing where there are none."""
    try:
        described = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = described["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def rows_of(origin: str, batches: Iterable[Any], features: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of Arrow tables or batches, with names instead of numbers where `features` has them."""
    named = {column: feature for column, feature in features.items() if has_names(feature)}
    number = 0
    for batch in batches:
        for fields in batch.to_pylist():
            number += 1
            place = f"{origin}: row {number}"
            for column in named.keys() & fields.keys():
                fields[column] = name_numbers(f"{place}, column {column!r}", fields[column], named[column])
            yield Row(place, fields)
