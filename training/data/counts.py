"""Counts of what reading took from files, and of what it left out."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self


class RowLeftOut(StrEnum):
    """Why the recipe or the format of a file leaves a row out."""

    NOT_SELECTED = "by where and unless"
    ONE_OF = "without exactly one label of one_of"
    REST = "with labels that merge does not name"
    CAP = "above the cap of rows"
    NOT_ANNOTATED = "that nobody annotated"
    REPEATED = "that repeat the answer of another annotator"
    NO_REPLY = "without a reply"
    NO_CONTEXT = "without turns before the reply"


class SpanLeftOut(StrEnum):
    """Why a span of a row that was read is left out."""

    OVERLAPPING = "overlapping a longer one"
    REST = "with labels that merge does not name"
    BLANK = "covering nothing but blanks"


@dataclass
class ReadCounts:
    """Rows and spans of the sources of one part; `repeat` and `typo_copies` are not counted.

    `rows`: rows that the files have. `spans`: spans of the rows that were kept, those left out too. `trimmed`: spans
    kept without the white space at their edges. `labels`: all that were read, under their names before `merge`.
    `unmatched`: values of `where` and `unless` that no row of a source has: path, key, column and value.
    """

    rows: int = 0
    rows_left_out: Counter[RowLeftOut] = field(default_factory=Counter)
    spans: int = 0
    spans_left_out: Counter[SpanLeftOut] = field(default_factory=Counter)
    trimmed: int = 0
    labels: set[str] = field(default_factory=set)
    unmatched: set[tuple[str, str, str, str]] = field(default_factory=set)

    def __iadd__(self, other: "ReadCounts") -> Self:
        self.rows += other.rows
        self.rows_left_out += other.rows_left_out
        self.spans += other.spans
        self.spans_left_out += other.spans_left_out
        self.trimmed += other.trimmed
        self.labels |= other.labels
        self.unmatched |= other.unmatched
        return self

    @property
    def kept(self) -> int:
        """Rows that became examples."""
        return self.rows - self.rows_left_out.total()

    def describe_left_out(self) -> str:
        """Return what was left out and why, in words; empty when nothing was."""
        left_out = (("row", self.rows_left_out), ("span", self.spans_left_out))
        return "; ".join(
            f"{count} {what}{'' if count == 1 else 's'} left out {why}"
            for what, counts in left_out
            for why, count in sorted(counts.items())
            if count
        )
