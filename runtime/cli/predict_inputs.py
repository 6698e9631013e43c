"""What `murmura predict` answers: texts, lines of files, and JSON lines with a second text or the turns of a conversation."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...schemas.acts import Act, Utterance
from ..errors import SetupError

_ENDINGS: Final = frozenset({".csv", ".json", ".jsonl", ".txt"})


@dataclass(frozen=True)
class Asked:
    """One line of input; `place` names it in errors."""

    place: str
    text: str
    second: str | None = None
    turns: tuple[Utterance, ...] = ()
    """Of the conversation, the newest last; without them the text is the only one."""
    acts: tuple[Act, ...] = ()
    slots: frozenset[str] | None = None
    """The slots that a reply may name; None: all."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore")

    text: str | None = Field(None, min_length=1)
    text_pair: str | None = None
    turns: list[Utterance] = []
    acts: list[Act] = []
    slots: list[str] | None = None


def read_inputs(given: Sequence[str]) -> Iterator[Asked]:
    """Yield what is asked: of `-` and of files each line, else the argument itself. Raises SetupError in one line."""
    for number, each in enumerate(given, 1):
        path = Path(each)
        if each == "-":
            sys.stdin.reconfigure(encoding="utf-8-sig")  # type: ignore[union-attr]
            yield from _read_lines(sys.stdin, "standard input")
        elif _is_file(path):
            with path.open(encoding="utf-8-sig") as file:
                yield from _read_lines(file, each)
        elif path.suffix in _ENDINGS and not each.strip().count(" "):
            raise SetupError(f"there is no file {each}; a text that looks like one goes into a file, or to -")
        else:
            yield _make_plain(each, f"text {number}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a name may be, or a null byte
        return False


def _read_lines(file: Any, name: str) -> Iterator[Asked]:
    number = 0
    try:
        for number, line in enumerate(file, 1):
            if text := line.strip():
                place = f"{name} line {number}"
                yield _parse(text, place) if text[0] == "{" else _make_plain(text, place)
    except UnicodeDecodeError as error:
        raise SetupError(f"{name}, after line {number}: not UTF-8 ({error.reason}); convert it first") from error


def _make_plain(text: str, place: str) -> Asked:
    if not text.strip():
        raise SetupError(f"{place} is empty; expected a text, a file, or - for standard input")
    return Asked(place, text)


def _parse(line: str, place: str) -> Asked:
    try:
        read = _Line.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SetupError(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise SetupError(f"{place} begins with a brace and is no JSON object: {str(error)[:100]}") from error
    text = read.text or next((turn.text for turn in reversed(read.turns) if turn.role == "user"), None)
    if text is None:
        raise SetupError(f"{place} has neither a `text` nor `turns` with one of the user's")
    slots = None if read.slots is None else frozenset(read.slots)
    return Asked(place, text, read.text_pair, tuple(read.turns), tuple(read.acts), slots)
