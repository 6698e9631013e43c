"""Exports of doccano, JSON lines or one array: `label` of labels or of triples, or `entities` as objects."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....runtime.errors import SetupError
from ...recipe.keys.reading import Columns, Reading
from ..row import Row, list_names
from .annotations import as_list, read_object, read_triple
from .json_rows import read_json


def read_doccano(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield a row for each text, with its labels and spans under the recipe's `columns`."""
    columns = reading.columns or Columns()
    for row in read_json(path, reading):
        labels, spans = _read_annotation(row, columns)
        fields = {
            name: value for name, value in row.fields.items() if name not in {"label", "labels", "cats", "entities"}
        }
        fields |= {} if labels is None else {columns.label: labels}
        fields |= {} if spans is None else {columns.spans: spans}
        yield Row(row.place, fields)


def _read_annotation(row: Row, columns: Columns) -> tuple[list[str] | None, list[dict[str, Any]] | None]:
    """Return labels and spans of a row; None for what its project does not annotate."""
    place, fields = row.place, row.fields
    if "annotations" in fields:
        raise SetupError(f"{place}: 'annotations' names labels by number; export again as JSONL with the labels' texts")
    cats = _read_labels(place, "cats", fields["cats"]) if "cats" in fields else None
    if "entities" in fields:
        spans = [_read_entity(place, item, columns) for item in as_list(place, "entities", fields["entities"])]
        return cats, spans
    key = "label" if "label" in fields else "labels"
    if key not in fields:
        found = list_names(fields)
        raise SetupError(f"{place}: expected 'label' or 'entities', as doccano writes them; found {found}")
    value = fields[key]
    if value == []:  # of either kind of project
        return [] if cats is None else cats, []
    if isinstance(value, list) and any(isinstance(item, list) for item in value):
        return cats, [read_triple(place, item, columns) for item in value]
    return _read_labels(place, key, value), None


def _read_entity(place: str, item: Any, columns: Columns) -> dict[str, Any]:
    if isinstance(item, list):  # as projects of intents and slots write them
        return read_triple(place, item, columns)
    return read_object(place, "an entity", item, columns, start="start_offset", end="end_offset")


def _read_labels(place: str, key: str, value: Any) -> list[str]:
    items = [value] if isinstance(value, str) else as_list(place, key, value)
    for item in items:
        if not isinstance(item, str):
            raise SetupError(
                f"{place}: {key} should be a list of labels or of [start, end, label], found {str(item)[:40]!r}"
            )
    return items
