"""Offsets of tools that run in a browser: they count UTF-16 units, of which an emoji has two."""

from typing import Any

from ....runtime.errors import SetupError


def find_stretch(place: str, text: str, start: int, end: int, carried: Any) -> tuple[int, int]:
    """Return the offsets in code points of a stretch whose offsets count either UTF-16 units or code points.

    `carried` is the stretch's own text where the export has it, and decides which. SetupError where neither fits, and where
    the two differ and nothing decides.
    """
    units = _as_code_points(text, start, end)
    if isinstance(carried, str):
        for begin, stop in (units, (start, end)):
            if _without_blanks(text[begin:stop]) == _without_blanks(carried):
                return begin, stop
        found = text[start:end][:40]
        raise SetupError(f"{place}: span {start}..{end} is {found!r} in the text, the export says {carried[:40]!r}")
    if units != (start, end):
        raise SetupError(
            f"{place}: span {start}..{end} is at or behind a character of two UTF-16 units and carries no text to find it by"
        )
    return start, end


def _as_code_points(text: str, start: int, end: int) -> tuple[int, int]:
    """Return offsets in code points of offsets in UTF-16 units; those in the middle of a character move in front of it."""
    astral = [position for position, character in enumerate(text) if ord(character) > 0xFFFF]
    found = []
    for offset in (start, end):
        at = offset
        for count, position in enumerate(astral):
            if position + count >= offset:
                break
            at -= 1
        found.append(at)
    return found[0], found[1]


def _without_blanks(text: str) -> str:
    """Return a text without white space, which spans carry in other forms: line breaks as an escape of two characters."""
    return "".join(text.replace("\\n", " ").split())
