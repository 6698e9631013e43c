"""Opens data files as text, plain or compressed."""

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from ...runtime.errors import SetupError

COMPRESSED: Final = ".gz"


def find_file(folder: Path, name: str) -> Path:
    """Return the file, or the one with `.gz` behind its name. SetupError when there is neither."""
    for path in (folder / name, folder / f"{name}{COMPRESSED}"):
        if path.is_file():
            return path
    raise SetupError(f"{folder / name}: no such file; paths in a recipe are relative to --data")


def suffix_of(path: Path) -> str:
    """Return the suffix that names the format: `.csv` of `x.csv.gz`."""
    return Path(path.stem).suffix if path.suffix == COMPRESSED else path.suffix


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a file as UTF-8 text, line ends as they are. SetupError for other bytes and damaged archives."""
    with _open(path) as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise SetupError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
        except (gzip.BadGzipFile, EOFError) as error:
            raise SetupError(f"{path}: a damaged gzip file: {error}") from None


def _open(path: Path) -> TextIO:
    if path.suffix == COMPRESSED:
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")
