"""Reads the text and the labels of a row. Every error names the file and the line."""

from typing import Any

from ...runtime.errors import SetupError
from ..recipe import Reading
from .row import Row


def read_text(row: Row, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SetupError(f"{row.place}: the text is {'empty' if isinstance(value, str) else type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SetupError(f"{row.place}: the text has a lone surrogate") from None
    return value


def read_labels(row: Row, column: str) -> list[str]:
    value = row.need(column)
    if isinstance(value, list) and all(isinstance(label, str) for label in value):
        return list(value)
    if isinstance(value, str | int) and str(value).strip():
        return [str(value)]
    raise SetupError(f"{row.place}: {column!r} should be a label or a list of labels, found {str(value)[:40]!r}")


def rename_labels(row: Row, labels: list[str], reading: Reading) -> list[str]:
    if not reading.merge:  # also the empty mapping of a source whose task has one
        return labels
    to = {old: new for new, olds in reading.merge.items() for old in olds}
    rest = reading.rest or "error"
    unnamed = [label for label in labels if label not in to]
    if unnamed and rest == "error":
        raise SetupError(f"{row.place}: label {unnamed[0]!r} is not in merge; name it there or set rest: keep or drop")
    return [to.get(label, label) for label in labels if label in to or rest == "keep"]
