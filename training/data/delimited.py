"""CSV and TSV."""

import csv
from collections.abc import Iterator
from pathlib import Path

from ...runtime.errors import SetupError
from ..recipe import Reading
from .opening import open_text, suffix_of
from .row import Row


def read_delimited(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield the rows below the header."""
    with open_text(path) as file:
        reader = csv.DictReader(file, dialect="excel-tab" if suffix_of(path) == ".tsv" else "excel")
        for fields in reader:
            if None in fields or None in fields.values():
                raise SetupError(
                    f"{path}:{reader.line_num}: expected {len(reader.fieldnames or ())} columns as in the header"
                )
            yield Row(f"{path}:{reader.line_num}", dict(fields))
