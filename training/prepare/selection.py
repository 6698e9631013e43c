"""Which rows of a source `where` and `unless` keep, and which of their values no row has."""

from collections.abc import Iterator
from typing import Any, Final

from ...runtime.model.texts.words import trim_blanks
from ..data.row import Row
from ..recipe.keys.reading import Reading

KEYS: Final = ("where", "unless")


def is_selected(row: Row, reading: Reading) -> bool:
    """Return whether `where` and `unless` keep a row. SetupError for one without the column."""

    def has(column: str, values: list[Any]) -> bool:
        value = row.need(column)
        return any(_are_equal(value, wanted) for wanted in values)

    wanted = all(has(column, values) for column, values in (reading.where or {}).items())
    return wanted and not any(has(column, values) for column, values in (reading.unless or {}).items())


def _are_equal(value: Any, wanted: Any) -> bool:
    """Compare as values, and as texts without white space around them: a CSV knows no numbers."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return trim_blanks(str(value)).lower() == str(wanted).lower()
    return bool(value == wanted) or trim_blanks(str(value)) == trim_blanks(str(wanted))


def list_values(reading: Reading) -> Iterator[tuple[str, str, Any]]:
    """Yield key, column and value of each value of `where` and `unless`."""
    for key in KEYS:
        for column, values in (getattr(reading, key) or {}).items():
            yield from ((key, column, value) for value in values)


class UnmatchedValues:
    """Values of `where` and `unless` that no row seen so far has, whether another condition keeps the row or not."""

    def __init__(self, reading: Reading) -> None:
        self._left = [*list_values(reading)]

    def see(self, row: Row) -> None:
        """Drop the values that this row has."""
        if self._left:
            self._left = [each for each in self._left if not _has(row, each[1], each[2])]

    def of(self, path: str) -> set[tuple[str, str, str, str]]:
        """Return path, key, column and value of those that are left."""
        return {(path, key, column, str(value)) for key, column, value in self._left}


def _has(row: Row, column: str, wanted: Any) -> bool:
    return row.has(column) and _are_equal(row.need(column), wanted)
