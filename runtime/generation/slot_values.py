"""Puts slots for their values into replies and turns: `a table at {restaurant_name}`. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from ...schemas.acts import SLOT


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
    taken = _Taken()
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


class _Taken:
    """Spans that do not overlap."""

    def __init__(self) -> None:
        self.spans: list[LabelledSpan] = []

    def add(self, span: LabelledSpan) -> bool:
        """Add a span and return True, unless it overlaps one of them."""
        free = all(span.end <= other.start or span.start >= other.end for other in self.spans)
        if free:
            self.spans.append(span)
        return free


def _find(text: str, value: str, slot: str) -> Iterator[_Place]:
    for found in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", text):
        yield _Place(found.start(), found.end(), slot)
