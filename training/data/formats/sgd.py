"""The Schema-Guided Dialogue data set: its dialogues, its acts, and its replies with slots for values.

Rastogi et al. 2020, arXiv 1909.05855. Read in the form that it is published in (an array of dialogues in a file, each turn
with its `frames`), and as lines with the frames of a turn joined: `role`, `text`, `acts` as [act, slot, values], `slots` as
[slot, start, end].
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from ....runtime.errors import SetupError
from ....runtime.generation.slot_values import put_slots
from ....schemas.acts import Act, ActName
from ...recipe.keys.reading import Reading
from ..example import Span
from ..replies import ACTS, DIALOGUE, REPLY, TURNS, check_slot
from ..row import Row
from .dialogues import split_dialogue
from .json_rows import read_items

ACT_NAMES: Final = {
    "REQUEST": ActName.REQUEST,
    "INFORM": ActName.INFORM,
    "INFORM_COUNT": ActName.INFORM,
    "OFFER": ActName.OFFER,
    "OFFER_INTENT": ActName.OFFER,
    "CONFIRM": ActName.CONFIRM,
    "NOTIFY_SUCCESS": ActName.NOTIFY_SUCCESS,
    "NOTIFY_FAILURE": ActName.NOTIFY_FAILURE,
    "REQ_MORE": ActName.REQUEST_MORE,
    "GOODBYE": ActName.GOODBYE,
}
"""What the system's acts are called here. Of the two that share a name, INFORM_COUNT has the slot `count`, which INFORM never
has, and OFFER_INTENT an intent and no slot."""
COUNT: Final = "count"
NO_WORDS: Final = frozenset({"True", "False", "dontcare"})
"""Values that do not stand in replies."""
_ROLES: Final = {"user": "user", "system": "agent", "USER": "user", "SYSTEM": "agent"}


class _GivenAct(NamedTuple):
    name: str
    slot: str
    values: Sequence[str]


def read_sgd(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield a row for each reply of the system, its values replaced by `{slot}`. SetupError for what is no such dialogue."""
    for place, item in read_items(path):
        try:
            dialogue = Row(place, _as_dialogue(place, item))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"{type(error).__name__}: {error}".replace("\n", " ")[:120]
            raise SetupError(f"{place}: no dialogue of Schema-Guided Dialogue: {problem}") from None
        yield from split_dialogue(dialogue)


def as_act(name: str, slot: str, values: Sequence[str]) -> Act:
    """Return an act of the data set's as one of the list. KeyError for one that its system never has."""
    act = ACT_NAMES[name]
    if name == "OFFER_INTENT":
        return Act(act=act, intent=values[0])
    return Act(act=act, slot=COUNT if name == "INFORM_COUNT" else slot or None)


def _as_dialogue(place: str, item: Any) -> dict[str, Any]:
    turns = [_as_turn(place, turn) for turn in item["turns"]]
    return {DIALOGUE: item["dialogue_id"], "services": item["services"], TURNS: turns}


def _as_turn(place: str, turn: Mapping[str, Any]) -> dict[str, Any]:
    if "frames" in turn:
        turn = _join_frames(turn)
    role, text = _ROLES[turn["role"]], turn["text"]
    if role == "user":
        return {"role": role, "text": text}
    acts = [_read_act(place, *act) for act in turn["acts"]]
    spans = [_read_span(place, text, *span) for span in turn["slots"]]
    said: dict[str, list[str]] = {COUNT: []}  # a count stands before the values of what is counted
    for act in acts:
        if act.slot not in {"", "intent"}:
            said.setdefault(act.slot, []).extend(str(value) for value in act.values if str(value) not in NO_WORDS)
    found = [as_act(*act).model_dump(exclude_none=True) for act in acts]
    return {"role": role, "text": text, ACTS: found, REPLY: put_slots(text, spans, said)}


def _read_act(place: str, name: str, slot: str, values: Sequence[str]) -> _GivenAct:
    if not isinstance(values, list) or (name == "OFFER_INTENT" and not values):
        raise ValueError(f"expected a list of values of act {name!r}, for an intent at least one, found {values!r}")
    return _GivenAct(name, slot if slot == "" else check_slot(place, slot), values)


def _read_span(place: str, text: str, slot: str, start: int, end: int) -> Span:
    if not 0 <= start < end <= len(text):
        raise ValueError(f"expected a span within the {len(text)} characters of the text, found {start!r} to {end!r}")
    return Span(start, end, check_slot(place, slot))


def _join_frames(turn: Mapping[str, Any]) -> dict[str, Any]:
    frames = turn["frames"]
    return {
        "role": turn["speaker"],
        "text": turn["utterance"],
        "acts": [(act["act"], act["slot"], act["values"]) for frame in frames for act in frame["actions"]],
        "slots": [(slot["slot"], slot["start"], slot["exclusive_end"]) for frame in frames for slot in frame["slots"]],
    }
