"""A row of a file: its place, and its fields."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from ...runtime.errors import SetupError
from .counts import RowLeftOut

SUGGESTED: Final = "suggested"
"""Column of the rows that `murmura suggest` wrote: their rank. People fill in the label; a row without one is left out."""


class UnnamedNumber(int):
    """A number in a column of named numbers that has no name: -1, which stands for a label that is not known."""


@dataclass(slots=True, frozen=True)
class Row:
    """`place`: file and line, for error messages; no two rows of a file have the same."""

    place: str
    fields: dict[str, Any]
    typed: bool = True
    """False where the format knows texts only, as CSV does: then a text may stand for a number or a list."""
    left_out: RowLeftOut | None = None
    """Why the format says that this row is none to learn from."""

    def need(self, column: str) -> Any:
        """Return the column; SetupError when the row has none."""
        if column not in self.fields:
            raise SetupError(f"{self.place}: column {column!r} is missing; found {list_names(self.fields)}")
        if self.fields[column] is None:
            raise SetupError(f"{self.place}: column {column!r} is missing: its value is null")
        return self.fields[column]

    def has(self, column: str) -> bool:
        """Return whether the column is there and not null."""
        return self.fields.get(column) is not None

    def without(self, *columns: str) -> dict[str, Any]:
        """Return the other columns."""
        return {name: value for name, value in self.fields.items() if name not in columns}


def list_names(names: Iterable[str]) -> str:
    """Return names on one line of bounded length."""
    line = ", ".join(name if name.isprintable() else repr(name) for name in names) or "nothing"
    return line if len(line) <= 200 else f"{line[:200]}..."


def is_unfilled(row: Row, column: str) -> bool:
    """Return whether a row is a suggestion of `murmura suggest` that nobody has filled in."""
    value = row.fields.get(column)
    return SUGGESTED in row.fields and (value is None or (isinstance(value, str) and not value.strip()))
