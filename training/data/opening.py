"""Opens data files as text, plain or compressed."""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from ...runtime.errors import SetupError

COMPRESSED: Final = ".gz"
_ESCAPED_BYTE: Final = re.compile("[\udc80-\udcff]")


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
    """Open a file as UTF-8 text, line ends as they are.

    SetupError, also while it is read, for a byte that is not UTF-8 (with its line), a damaged archive, and a file that
    cannot be read.
    """
    try:
        try:
            with _open(path) as file:
                yield file
        except UnicodeDecodeError:
            line, byte = _find_bad_byte(path)  # of an archive, this may come upon damage behind it
            raise SetupError(f"{path}:{line}: not UTF-8: byte 0x{byte:02x}; save the file as UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SetupError(f"{path}: a damaged gzip file: {error}") from None
    except OSError as error:
        raise SetupError(f"{path}: cannot read the file: {error.strerror or error}") from None


def _open(path: Path, errors: str = "strict") -> TextIO:
    if path.suffix == COMPRESSED:
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", errors=errors, newline="")
    return path.open(encoding="utf-8-sig", errors=errors, newline="")


def _find_bad_byte(path: Path) -> tuple[int, int]:
    """Return line (from 1) and value of the first byte that is not UTF-8.

    The decoder's own error counts from the beginning of a block.
    """
    with _open(path, errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if found := _ESCAPED_BYTE.search(line):
                return number, ord(found.group()) - 0xDC00
    raise AssertionError("the first reading met such a byte")
