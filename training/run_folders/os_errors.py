"""Writes whose errors are OSError and name the file: a full disk is one kind of error, whoever wrote.

Python names no file where a write fails after the file was opened; safetensors and tokenizers raise errors of their own.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer

_CODE = re.compile(r"\(os error (\d+)\)")


@contextmanager
def as_os_error(path: Path) -> Iterator[None]:
    """Raise OSError with its code and the path where the system refused to write the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
    except Exception as error:  # tokenizers raises no class of its own
        if (found := _CODE.search(str(error))) is None:
            raise
        code = int(found[1])
        raise OSError(code, os.strerror(code), str(path)) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, with the line ends as they are."""
    with as_os_error(path):
        path.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file."""
    with as_os_error(path):
        path.write_bytes(data)


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write `tokenizer.json`."""
    with as_os_error(path):
        tokenizer.save(str(path))
