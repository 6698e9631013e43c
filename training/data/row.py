"""A row of a file: where it stands, and its fields."""

from dataclasses import dataclass
from typing import Any

from ...runtime.errors import SetupError


@dataclass(slots=True, frozen=True)
class Row:
    """`place`: file and line, for error messages."""

    place: str
    fields: dict[str, Any]

    def need(self, column: str) -> Any:
        """Return the column; SetupError when the row has none."""
        if column in self.fields and self.fields[column] is not None:
            return self.fields[column]
        found = ", ".join(self.fields) or "nothing"
        raise SetupError(f"{self.place}: column {column!r} is missing; found {found}")

    def without(self, *columns: str) -> dict[str, Any]:
        """Return the other columns."""
        return {name: value for name, value in self.fields.items() if name not in columns}
