"""The names of labels as texts: of few rows they are some more."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ..data.example import Example
from .tasks import TaskData

SEPARATORS: Final = re.compile(r"[\W_]+")


def name_rows(data: TaskData) -> list[Example]:
    """Return a row for each label whose name has a letter: the name with blanks between its words.

    The out-of-scope label has none: its name describes no text. Nor has a label of two texts: there is no second one.
    """
    if data.kind.per_pair:
        return []
    scope = data.task.out_of_scope.label if data.task.out_of_scope else None
    names: Sequence[tuple[str, str]] = [
        (label, SEPARATORS.sub(" ", label).strip()) for label in data.labels if label != scope
    ]
    return [Example(text=name, labels=(label,)) for label, name in names if any(map(str.isalpha, name))]


def with_place_of_name(row: Example) -> Example:
    """Return the row of a name with a place that says so, for errors."""
    return replace(row, place=f"the name of the label {row.labels[0]!r}")
