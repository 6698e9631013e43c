"""Schemes of tags on tokens: IOB1, IOB2, BILOU and its twin BIOES are turned into IOB2, which the trainer reads."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

OUTSIDE: Final = "O"
BEGIN, INSIDE, LAST, SINGLE = "B", "I", frozenset("LE"), frozenset("US")


class Scheme(StrEnum):
    IOB = "BIO"
    """IOB1 and IOB2. An I opens a span behind another label or none, so both are read by the same rule."""
    BILOU = "BILOU"
    """BIOES, too. The end of each span is marked, so a broken span is seen."""


EXPECTED: Final = {Scheme.IOB: "O, B-x or I-x", Scheme.BILOU: "O, B-x, I-x, L-x or U-x"}


class TagError(ValueError):
    """A tag that cannot stand where it does; `position` is its index."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


def find_scheme(tags: Iterable[str]) -> Scheme:
    """Return the scheme of all tags of a file: BILOU if any of them marks an end or a single token."""
    marked = LAST | SINGLE
    return Scheme.BILOU if any(tag[:1] in marked and tag[1:2] == "-" for tag in tags) else Scheme.IOB


def to_iob2(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Return the tags of one sentence in IOB2. Raises TagError at the first that does not fit the scheme."""
    for position, tag in enumerate(tags):
        _check_form(position, tag, scheme)
    return _from_iob(tags) if scheme is Scheme.IOB else _from_bilou(tags)


def _check_form(position: int, tag: str, scheme: Scheme) -> None:
    if tag == OUTSIDE:
        return
    prefixes = "BI" if scheme is Scheme.IOB else "BILUES"
    if tag[:1] not in prefixes or tag[1:2] != "-" or not tag[2:].strip():
        raise TagError(position, f"tag {tag[:60]!r} is not {scheme} ({EXPECTED[scheme]})")


def _from_iob(tags: Sequence[str]) -> list[str]:
    found: list[str] = []
    before = OUTSIDE
    for tag in tags:
        opens = tag != OUTSIDE and (tag[0] == BEGIN or before[2:] != tag[2:])
        found.append(f"B-{tag[2:]}" if opens else tag)
        before = tag
    return found


def _from_bilou(tags: Sequence[str]) -> list[str]:
    found: list[str] = []
    open_label: str | None = None
    for position, tag in enumerate([*tags, OUTSIDE]):
        prefix, label = tag[0], tag[2:]
        continues = prefix == INSIDE or prefix in LAST
        if open_label is not None and not (continues and label == open_label):
            follows = repr(tag) if position < len(tags) else "the end of the sentence"
            raise TagError(
                min(position, len(tags) - 1),
                f"expected I-{open_label} or L-{open_label} behind {tags[position - 1]!r}, found {follows}",
            )
        if open_label is None and continues:
            raise TagError(position, f"tag {tag!r} continues a span that no B-{label} opens")
        found.append(f"{INSIDE if continues else BEGIN}-{label}" if tag != OUTSIDE else tag)
        open_label = label if prefix in {BEGIN, INSIDE} else None
    return found[:-1]
