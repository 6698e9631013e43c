"""Puts slots for their values into replies and turns: `a table at {restaurant_name}`. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from ...schemas.acts import SLOT, SLOT_MARK

_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_INSIDE: Final = re.compile(r"[\w,] $")
_NO_NAMES: Final = frozenset({"and", "at", "for", "in", "my", "of", "on", "the", "to", "your"})
_SHORT: Final = 3
"""Up to so many characters a value in other letter case may be another word: `US` and `us`."""


class LabelledSpan(Protocol):
    """A stretch of a text that is the value of a slot; code points, `end` exclusive."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def label(self) -> str: ...


class _Place(NamedTuple):
    start: int
    end: int
    label: str


def put_slots(text: str, spans: Iterable[LabelledSpan], values: Mapping[str, Sequence[str]]) -> str:
    """Return the text with `{slot}` for each span, and for each value wherever it stands as whole words.

    Slots that the text has already come first, then spans, then longer values before shorter ones; what overlaps one of these
    stays as it is. Slots with equal values share its places in their order, the last of them takes what is left.
    """
    taken = _Taken(len(text))
    for found in SLOT.finditer(text):
        taken.add(_Place(found.start(), found.end(), found[1]))
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        taken.add(span)
    pairs = sorted(
        ((value, slot) for slot, each in values.items() for value in each if value), key=lambda p: -len(p[0])
    )
    for value, slot in pairs:
        next(filter(taken.add, _find(text, value, slot)), None)
    for value, slot in reversed(pairs):
        for span in _find(text, value, slot):
            taken.add(span)
    parts, at = [], 0
    for span in sorted(taken.spans, key=lambda span: span.start):
        parts += [text[at : span.start], f"{{{span.label}}}"]
        at = span.end
    return "".join([*parts, text[at:]])


def holds_part(text: str, values: Iterable[str]) -> bool:
    """Return whether a text without its slots has a value in other letter case, or a name out of one: `Dear Dave` of `Dave Smith`.

    A name is a capitalised word of a value, or a word of a value that is capitalised inside a sentence.
    """
    words, values = SLOT.sub(SLOT_MARK, text), [*values]
    if any(next(_find(words.casefold(), value.casefold(), ""), None) for value in values if len(value) > _SHORT):
        return True
    parts = {part for value in values for part in _WORD.findall(value) if part.lower() not in _NO_NAMES}
    names = {part.casefold() for part in parts if part[0].isupper()}
    others = {part.casefold() for part in parts}
    return any(
        found[0].casefold() in (others if _INSIDE.search(words[: found.start()]) else names)
        for found in _WORD.finditer(words)
        if found[0][0].isupper()
    )


class _Taken:
    """Spans of a text that do not overlap. A turn may have a value many thousand times, so that each span costs its length."""

    def __init__(self, length: int) -> None:
        self.spans: list[LabelledSpan] = []
        self._covered = bytearray(length)

    def add(self, span: LabelledSpan) -> bool:
        """Add a span and return True, unless it overlaps one of them."""
        free = not any(self._covered[span.start : span.end])
        if free:
            self.spans.append(span)
            self._covered[span.start : span.end] = b"\1" * (span.end - span.start)
        return free


def _find(text: str, value: str, slot: str) -> Iterator[_Place]:
    for found in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", text):
        yield _Place(found.start(), found.end(), slot)
