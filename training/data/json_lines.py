"""JSON lines: one object a line."""

import json
from collections.abc import Iterator
from pathlib import Path

from ...runtime.errors import SetupError
from ..recipe import Reading
from .opening import open_text
from .row import Row


def read_json_lines(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield the objects; empty lines are skipped."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except ValueError as error:
                raise SetupError(f"{path}:{number}: not JSON: {error}") from None
            if not isinstance(fields, dict):
                raise SetupError(f"{path}:{number}: expected an object, found {type(fields).__name__}")
            yield Row(f"{path}:{number}", fields)
