"""JSON: one object a line, or one array of objects."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ....runtime.errors import SetupError
from ...recipe.keys.reading import Reading
from ..opening import open_text
from ..row import Row

_BLANK: Final = re.compile(r"[ \t\r\n]*")


def read_json_lines(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield the objects; empty lines are skipped. SetupError for a line that is anything else."""
    return (_as_row(place, item) for place, item in read_line_items(path))


def read_json(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield the objects of an array, each with the line where it begins; a file of anything else is JSON lines."""
    return (_as_row(place, item) for place, item in read_items(path))


def read_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield place and value of each item of an array; of a file of anything else, those of each line."""
    with open_text(path) as file:
        begins = next((line.lstrip()[0] for line in file if line.strip()), "")
    return _read_array(path) if begins == "[" else read_line_items(path)


def read_line_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield place and value of each line; empty lines are skipped."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}:{number}", _parse(f"{path}:{number}", line)


def _read_array(path: Path) -> Iterator[tuple[str, Any]]:
    with open_text(path) as file:
        text = file.read()
    line, counted, number = 1, 0, 0
    at = _skip(text, _skip(text, 0) + 1)
    while number or text[at : at + 1] != "]":
        line, counted, number = line + text.count("\n", counted, at), at, number + 1
        item, at = _parse_item(path, text, at, line)
        yield f"{path}:{line} (item {number})", item
        at = _skip(text, at)
        if text[at : at + 1] != ",":
            break
        at = _skip(text, at + 1)
    end = _skip(text, at + 1)
    if text[at : at + 1] != "]" or end < len(text):
        at = end if text[at : at + 1] == "]" else at
        problem = f"unexpected {text[at : at + 20]!r}" if at < len(text) else "the array is not closed"
        raise SetupError(f"{path}:{line + text.count(chr(10), counted, at)}: not JSON: {problem}")


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _refuse_doubled_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the object of its pairs; by itself the library takes the last of equal keys."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        doubled = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {doubled[:40]!r} stands twice in an object")
    return made


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_refuse_doubled_keys)


def _parse(place: str, line: str) -> Any:
    try:
        return _DECODER.decode(line)
    except (RecursionError, ValueError) as error:
        raise _explain_unreadable(place, error) from None


def _parse_item(path: Path, text: str, at: int, line: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except (RecursionError, ValueError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else line
        raise _explain_unreadable(f"{path}:{line}", error) from None


def _explain_unreadable(place: str, error: RecursionError | ValueError) -> SetupError:
    if isinstance(error, json.JSONDecodeError):
        return SetupError(f"{place}: not JSON: {error.msg} at character {error.colno}")
    return SetupError(f"{place}: not readable: {'nested too deeply' if isinstance(error, RecursionError) else error}")


def _as_row(place: str, item: Any) -> Row:
    if not isinstance(item, dict):
        hint = "; write `format: json` for an array" if isinstance(item, list) else ""
        raise SetupError(f"{place}: expected an object, found {type(item).__name__}{hint}")
    return Row(place, item)
