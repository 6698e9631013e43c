"""What `murmura predict` answers: texts, lines of files, and JSON lines with a second text or the turns of a conversation."""

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ...schemas.acts import Act, Utterance
from ..errors import SetupError

_ENDINGS: Final = frozenset({".csv", ".json", ".jsonl", ".tsv", ".txt"})
_PART: Final = 64


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


def _check_text(text: str) -> str:
    """Return a text. ValueError for a blank one, and for one that is no valid Unicode."""
    if not text.strip():
        raise ValueError("is empty; expected a text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("has a lone surrogate, which is not a character")
    return text


_Text = Annotated[str, AfterValidator(_check_text)]


class _Turn(Utterance):
    text: _Text


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: _Text | None = None
    text_pair: _Text | None = None
    turns: list[_Turn] = []
    acts: list[Act] = []
    slots: list[str] | None = None


def read_parts(given: Sequence[str], slots: Collection[str]) -> Iterator[list[Asked]]:
    """Yield inputs in parts that are answered together; what is typed at a terminal line by line. See `read_inputs`."""
    typed = sys.stdin.isatty()
    for alone, arguments in groupby(enumerate(given, 1), lambda argument: typed and argument[1] == "-"):
        inputs = read_inputs(arguments, slots)
        while part := list(islice(inputs, 1 if alone else _PART)):
            yield part


def read_inputs(arguments: Iterable[tuple[int, str]], slots: Collection[str]) -> Iterator[Asked]:
    """Yield what numbered arguments ask: of `-` and of files each line, else the argument itself.

    `slots` are those that replies of the model may name. Raises SetupError in one line.
    """
    for number, each in arguments:
        if each == "-":
            sys.stdin.reconfigure(encoding="utf-8-sig")  # type: ignore[union-attr]
            yield from _read_lines(sys.stdin, "standard input", slots)
        elif _is_file(each):
            with Path(each).open(encoding="utf-8-sig") as file:
                yield from _read_lines(file, each, slots)
        elif _looks_like_path(each):
            raise SetupError(f"there is no file {each}; a text that looks like one goes into a file, or to -")
        else:
            yield _make_plain(each, f"text {number}")


def _is_file(argument: str) -> bool:
    path = Path(argument)
    try:
        if argument and path.is_dir():
            raise SetupError(f"{argument} is a folder; name its files, or give a text of that name to -")
        return path.exists()
    except (OSError, ValueError):  # longer than a name may be, or a null byte
        return False


def _looks_like_path(argument: str) -> bool:
    is_word = len(argument.split()) == 1
    return is_word and ("/" in argument or Path(argument.strip()).suffix.lower() in _ENDINGS)


def _read_lines(file: Any, name: str, slots: Collection[str]) -> Iterator[Asked]:
    number = 0
    try:
        for number, line in enumerate(file, 1):
            if text := line.strip():
                place = f"{name} line {number}"
                yield _parse(text, place, slots) if text[0] == "{" else _make_plain(text, place)
    except UnicodeDecodeError as error:
        raise SetupError(f"{name}, after line {number}: not UTF-8 ({error.reason}); convert it first") from error


def _make_plain(text: str, place: str) -> Asked:
    try:
        return Asked(place, _check_text(text))
    except ValueError as error:
        raise SetupError(f"{place} {error}") from error


def _parse(line: str, place: str, slots: Collection[str]) -> Asked:
    try:
        read = _Line.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SetupError(
            f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SetupError(f"{place} begins with a brace and is no JSON object: {str(error)[:100]}") from error
    if read.text is not None and read.turns:
        raise SetupError(f"{place} has `text` and `turns`; give one of them: the newest turn of the user is the text")
    text = read.text or next((turn.text for turn in reversed(read.turns) if turn.role == "user"), None)
    if text is None:
        raise SetupError(f"{place} has neither a `text` nor `turns` with one of the user's")
    if unknown := sorted({*(read.slots or ())} - {*slots}):
        raise SetupError(f"{place}: no reply names slot {unknown[0]!r}; expected {', '.join(sorted(slots)) or 'none'}")
    allowed = None if read.slots is None else frozenset(read.slots)
    return Asked(place, text, read.text_pair, tuple(read.turns), tuple(read.acts), allowed)
