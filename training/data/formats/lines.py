"""Plain text: a text a line; an empty line ends a document."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ...recipe.keys.reading import Reading
from ..opening import open_text
from ..row import Row

DOCUMENT: Final = "document"


def read_lines(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield a row for each line that is not blank: its `text`, and the number of its `document`, from 1."""
    document, is_between = 0, True
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if text:
                document += is_between
                yield Row(f"{path}:{number}", {"text": text, DOCUMENT: document}, typed=False)
            is_between = not text
