r"""What a decoder reads: the acts of the reply and the last turns, as the two texts of a pair. Pure; version 1 of the form.

    offer to reserve restaurant; inform city, date     user: a table for two please\nagent: which city?\nuser: Ulm

Training and serving make their inputs here and nowhere else.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Final

from ...schemas.acts import Act, ActName, Utterance
from ...schemas.manifest import GenerationSpec
from ..model.inputs import TextPair
from .names import mask_names
from .slot_values import put_slots

_ORDER: Final = {name: number for number, name in enumerate(ActName)}
_MOST_MASKED: Final = 16
"""Of a turn so many times as many characters are masked as bytes are read: it may have a megabyte."""
_WORD: Final = re.compile(r"\S+")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def format_input(turns: Sequence[Utterance], acts: Sequence[Act], spec: GenerationSpec) -> TextPair:
    """Return the acts in words (nothing for a task that reads none) and the last turns, the oldest first.

    Neither the order of acts nor repeated ones make a difference. Of turns that are longer than `context_bytes` the older ones
    are dropped first, then the newest is cut at its end. A turn is a line: tokenising drops older ones by the limit of tokens.
    """
    return TextPair(describe_acts(acts) if spec.acts else "", _join_turns(turns, spec))


def mask_turns(
    turns: Sequence[Utterance], values: Mapping[str, Sequence[str]], spec: GenerationSpec
) -> Sequence[Utterance]:
    """Return the turns as the task reads them: with `mask_values` as `{slot}` where a value of a slot stands, and with
    `mask_names` without names and without the pronouns that tell people apart.

    So a reply does not depend on them. A value with a name is read as the name alone, whether it was recognised or not.
    """
    if spec.mask_names:
        values = {slot: [each for each in given if mask_names(each) == each] for slot, given in values.items()}
    return [turn.model_copy(update={"text": _mask(turn.text, values, spec)}) for turn in turns]


def exceeds_bytes(turns: Sequence[Utterance], spec: GenerationSpec) -> bool:
    """Return whether the newest turn is longer than `context_bytes`, so that `format_input` cuts it."""
    return any(len(_format_turn(turn, spec.context_bytes)) > spec.context_bytes for turn in turns[-1:])


def describe_acts(acts: Iterable[Act]) -> str:
    """Return acts in words, those of one name together: `request city, date; goodbye`."""
    order = sorted(set(acts), key=lambda act: (_ORDER[act.act], act.slot or "", act.intent or ""))
    return "; ".join(_describe_group(name, group) for name, group in groupby(order, key=lambda act: act.act))


def to_words(name: str) -> str:
    """Return a name of slots or intents in lower-case words: `ReserveRestaurant` and `reserve_restaurant` are the same."""
    return " ".join(_HUMP.sub(" ", name).replace("_", " ").lower().split())


def _describe_group(name: ActName, acts: Iterable[Act]) -> str:
    objects = ", ".join(filter(None, map(_describe_object, acts)))
    return f"{to_words(name)} {objects}".rstrip()


def _describe_object(act: Act) -> str:
    slot = to_words(act.slot) if act.slot else ""
    if act.intent is None:
        return slot
    return f"{slot} for {to_words(act.intent)}" if slot else f"to {to_words(act.intent)}"


def _mask(text: str, values: Mapping[str, Sequence[str]], spec: GenerationSpec) -> str:
    if not spec.mask_values and not spec.mask_names:
        return text
    text = text[: _MOST_MASKED * spec.context_bytes]
    text = put_slots(text, (), values) if spec.mask_values else text
    return mask_names(text) if spec.mask_names else text


def _join_turns(turns: Sequence[Utterance], spec: GenerationSpec) -> str:
    return "\n".join(reversed([*_newest_first(turns[-spec.context :], spec.context_bytes)]))


def _newest_first(turns: Sequence[Utterance], left: int) -> Iterator[str]:
    """Yield the lines of turns as long as they fit; the newest always, cut to what is left."""
    for number, turn in enumerate(reversed(turns)):
        line = _format_turn(turn, left)
        if number and len(line) > left:
            return
        yield line[:left].decode(errors="ignore")
        left -= len(line) + 1


def _format_turn(turn: Utterance, most: int) -> bytes:
    """Return the line of a turn; of one longer than `most` bytes a beginning that is longer, too: it may have a megabyte."""
    # White space is no part of the meaning, and a line break would let a turn pass for two.
    words = (found[0] for found in islice(_WORD.finditer(turn.text), max(most, 1)))
    return f"{turn.role}: {' '.join(words)}".encode(errors="replace")
