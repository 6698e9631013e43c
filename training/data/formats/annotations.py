"""What exports of annotation tools have in common: fields for labels and spans, and offsets that are checked."""

from collections.abc import Sequence
from typing import Any

from ....runtime.errors import SetupError
from ...recipe.keys.reading import Columns
from ..row import list_names


def make_span(columns: Columns, start: int, end: int, label: str) -> dict[str, Any]:
    """Return a span under the keys that the recipe's `columns` name."""
    return {columns.start: start, columns.end: end, columns.span_label: label}


def only_label(place: str, value: Any) -> str:
    """Return the one label of a span: a string, or a list of one. SetupError for anything else."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not value.strip():
        raise SetupError(f"{place}: expected one label for a span, found {str(value)[:40]!r}")
    return value


def whole_offset(place: str, value: Any) -> int:
    """Return an offset. SetupError for anything but a whole number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SetupError(
            f"{place}: expected a whole number from 0 on as the offset of a span, found {str(value)[:40]!r}"
        )
    return value


def read_object(
    place: str, words: str, value: Any, columns: Columns, *, start: str = "start", end: str = "end"
) -> dict[str, Any]:
    """Return the span of an object with offsets under these keys and a `label`. `words`: what it is called in an error."""
    entity = as_object(place, words, value)
    if any(key not in entity for key in (start, end, "label")):
        raise SetupError(f"{place}: {words} needs {start}, {end}, label; found {list_names(entity)}")
    first, last = whole_offset(place, entity[start]), whole_offset(place, entity[end])
    return make_span(columns, first, last, only_label(place, entity["label"]))


def read_triple(place: str, value: Any, columns: Columns) -> dict[str, Any]:
    """Return the span of [start, end, label]."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 3:
        raise SetupError(f"{place}: expected a span as [start, end, label], found {str(value)[:60]!r}")
    start, end, label = value
    return make_span(columns, whole_offset(place, start), whole_offset(place, end), only_label(place, label))


def as_list(place: str, key: str, value: Any) -> list[Any]:
    """Return a list as it is. SetupError for anything else."""
    if not isinstance(value, list):
        raise SetupError(f"{place}: {key} should be a list, found {type(value).__name__}")
    return value


def as_object(place: str, key: str, value: Any) -> dict[str, Any]:
    """Return an object as it is. SetupError for anything else."""
    if not isinstance(value, dict):
        raise SetupError(f"{place}: {key} should be an object, found {type(value).__name__}")
    return value
