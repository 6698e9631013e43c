"""Reads rows of a reply: the turns before it, its acts, and the reply with slots for values."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from ...runtime.errors import SetupError
from ...runtime.generation.input_format import format_input, mask_turns
from ...runtime.generation.slot_values import put_slots
from ...schemas.acts import SLOT, Act, ActName, SlotName, Utterance
from .example import Example
from .fields import check_text
from .row import Row
from .rules import Rules

TURNS: Final = "turns"
ACTS: Final = "acts"
REPLY: Final = "reply"
SLOTS: Final = "slots"
DIALOGUE: Final = "dialogue"
"""Columns of a row."""
_SLOT_NAME: Final = TypeAdapter[str](SlotName)


def read_reply(row: Row, rules: Rules) -> Example:
    """Return the example of a row. SetupError in one line for a row without turns or reply, or with acts not in the list.

    Acts may be missing where the task reads none.
    """
    assert rules.generation is not None, "a task of replies has sizes"
    turns = read_turns(row)
    acts = read_acts(row) if rules.generation.acts or row.has(ACTS) else ()
    reply = check_text(row, row.need(REPLY), "the reply").strip()
    for found in SLOT.finditer(reply):
        check_slot(row.place, found[1])
    values = read_slots(row)
    given = format_input(mask_turns(turns, values, rules.generation), acts, rules.generation)
    return Example(
        given.text,
        second=given.second,
        reply=put_slots(reply, (), values),
        acts=acts,
        place=row.place,
        meta=row.without(TURNS, ACTS, REPLY, SLOTS),
    )


def write_reply(example: Example) -> dict[str, Any]:
    """Return an example as a row that `read_reply` reads as the same: its turns are those that the task reads."""
    turns = (line.split(": ", 1) for line in (example.second or "").split("\n"))
    return {
        TURNS: [{"role": role, "text": text} for role, text in turns],
        ACTS: [act.model_dump(mode="json", exclude_none=True) for act in example.acts],
        REPLY: example.reply,
    }


def read_turns(row: Row) -> list[Utterance]:
    """Return the turns of a row, the oldest first."""
    turns = row.need(TURNS)
    if not isinstance(turns, list) or not turns:
        raise SetupError(f"{row.place}: {TURNS!r} should be a list of turns before the reply, found {_show(turns)}")
    return [_read_turn(row, turn) for turn in turns]


def read_acts(row: Row) -> tuple[Act, ...]:
    """Return the acts of a row: objects with `act`, `slot` and `intent`, or the name of an act alone."""
    acts = row.need(ACTS)
    if not isinstance(acts, list):
        raise SetupError(f"{row.place}: {ACTS!r} should be a list of acts, found {_show(acts)}")
    return tuple(_read_act(row, act) for act in acts)


def read_slots(row: Row) -> Mapping[str, Sequence[str]]:
    """Return the values of each slot: a text or a list of texts for each."""
    slots = row.fields.get(SLOTS)
    if slots is None:
        return {}
    if not isinstance(slots, dict):
        raise SetupError(
            f"{row.place}: {SLOTS!r} should be an object with the values of each slot, found {_show(slots)}"
        )
    return {check_slot(row.place, name): _read_values(row, name, value) for name, value in slots.items()}


def check_slot(place: str, name: Any) -> str:
    """Return the name of a slot. SetupError for one that cannot stand in a reply as `{NAME}`."""
    try:
        return _SLOT_NAME.validate_python(name, strict=True)
    except ValidationError:
        raise SetupError(
            f"{place}: {_show(name)} is no name of a slot: expected letters, digits and `_`, no digit first, at most 100 in all"
        ) from None


def _read_values(row: Row, name: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if wrong := [each for each in values if isinstance(each, bool) or not isinstance(each, str | int | float)]:
        raise SetupError(f"{row.place}: a value of slot {name!r} should be a text, found {_show(wrong[0])}")
    return [str(each).strip() for each in values]


def _read_turn(row: Row, turn: Any) -> Utterance:
    if not isinstance(turn, dict) or turn.get("role") not in {"user", "agent"}:
        raise SetupError(
            f'{row.place}: a turn should be {{"role": "user" or "agent", "text": ...}}, found {_show(turn)}'
        )
    return Utterance(role=turn["role"], text=check_text(row, turn.get("text"), "the text of a turn"))


def _read_act(row: Row, value: Any) -> Act:
    given = {"act": value} if isinstance(value, str) else value
    if not isinstance(given, dict) or "act" not in given:
        raise SetupError(
            f'{row.place}: an act should be {{"act": ..., "slot": ..., "intent": ...}}, found {_show(value)}'
        )
    if given["act"] not in [*ActName]:
        raise SetupError(f"{row.place}: no act {_show(given['act'])}; expected one of {', '.join(ActName)}")
    if given.get("slot") is not None:
        check_slot(row.place, given["slot"])
    try:
        return Act.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise SetupError(f"{row.place}: an act's {first['loc'][0]!r}: {first['msg']}; found {_show(value)}") from None


def _show(value: Any) -> str:
    """Return a value on one line, cut."""
    return repr(value)[:80]
