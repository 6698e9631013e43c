"""Whole dialogues as JSON lines: a row for each reply of the agent."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....runtime.errors import SetupError
from ...recipe.keys.reading import Reading
from ..counts import RowLeftOut
from ..replies import ACTS, DIALOGUE, REPLY, SLOTS, TURNS
from ..row import Row
from .json_rows import read_json_lines


def read_dialogues(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield a row for each turn of the agent that has turns before it.

    A line is `{"dialogue": ..., "turns": [{"role": "user" or "agent", "text": ..., "acts": [...], "slots": {...}}, ...]}`;
    without an id its place is that of the dialogue. A turn's `reply` is its text with slots for values. A line without
    a reply is a row that is left out, and so is an empty reply. Blank turns are left out, and a reply with none but blank turns before
    it is a row that is left out. SetupError for a line that is no dialogue.
    """
    for dialogue in read_json_lines(path, reading):
        yield from split_dialogue(dialogue)


def split_dialogue(dialogue: Row) -> Iterator[Row]:
    """Yield the rows of a dialogue, each with the other fields of its line."""
    turns = dialogue.need(TURNS)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise SetupError(f"{dialogue.place}: {TURNS!r} should be a list of turns, found {repr(turns)[:80]}")
    replies = [number for number, turn in enumerate(turns) if number and turn.get("role") == "agent"]
    if not replies:
        yield Row(dialogue.place, dialogue.fields, left_out=RowLeftOut.NO_REPLY)
    name = dialogue.fields.get(DIALOGUE) or dialogue.place
    others = {**dialogue.without(TURNS), DIALOGUE: name}
    for number in replies:
        yield _as_row(f"{dialogue.place} (turn {number + 1})", turns[number], turns[:number], others)


def _as_row(place: str, turn: Mapping[str, Any], before: Sequence[Mapping[str, Any]], others: Mapping[str, Any]) -> Row:
    reply = {REPLY: turn.get(REPLY, turn.get("text")), ACTS: turn.get(ACTS), SLOTS: turn.get(SLOTS)}
    context = [
        {"role": each.get("role"), "text": each.get("text")} for each in before if not _is_blank(each.get("text"))
    ]
    left_out = RowLeftOut.NO_REPLY if _is_blank(reply[REPLY]) else None if context else RowLeftOut.NO_CONTEXT
    return Row(place, {**others, TURNS: context, **reply}, left_out=left_out)


def _is_blank(text: Any) -> bool:
    return isinstance(text, str) and not text.strip()
