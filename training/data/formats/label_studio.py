"""Exports of Label Studio: JSON with every annotation of a task, and JSON_MIN with one row for each annotation.

A control of the project gives its answers to a field of its own name (`from_name`), so that `columns` can name it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ....runtime.errors import SetupError
from ...recipe.keys.reading import Columns, Reading
from ..counts import RowLeftOut
from ..row import Row
from .annotations import as_list, as_object, make_span, only_label, whole_offset
from .json_rows import read_json
from .utf16 import find_stretch

LABELS: Final = "labels"
CHOICES: Final = "choices"
DONE_BY: Final = ("annotation_id", "annotator")
"""Fields of JSON_MIN that an annotated task has, and another annotator's row has differently."""
ABOUT: Final = {*DONE_BY, "created_at", "updated_at", "lead_time"}


@dataclass
class _Answer:
    """What one annotation says, by control: choices, and spans as exported."""

    choices: dict[str, list[Any]] = field(default_factory=dict)
    spans: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class _Task:
    place: str
    data: dict[str, Any]
    answers: list[_Answer]
    key: int | str | None = None
    """Of JSON_MIN, where a task has as many rows as annotators."""


def read_label_studio(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield a row for each task: its data, and the answers of each control under the control's name.

    The answers of a project's only control of a kind also stand under `label` or `spans`. Tasks without an annotation,
    skipped ones and repetitions by other annotators are rows that are left out. SetupError where annotators disagree.
    """
    columns = reading.columns or Columns()
    tasks = [_read_task(row) for row in read_json(path, reading)]
    choices = sorted({name for task in tasks for answer in task.answers for name in answer.choices})
    spans = sorted({name for task in tasks for answer in task.answers for name in answer.spans})
    seen: dict[int | str, dict[str, Any]] = {}
    for task in tasks:
        read = [_fields_of(task, answer, choices, spans, columns) for answer in task.answers]
        if not read:
            yield Row(task.place, task.data, left_out=RowLeftOut.NOT_ANNOTATED)
            continue
        first = read[0] if task.key is None else seen.setdefault(task.key, read[0])
        if any(fields != first for fields in read):
            raise SetupError(
                f"{task.place}: annotators disagree about this task; mark the right annotation as ground truth and export "
                "JSON, or leave the task out"
            )
        yield Row(task.place, {**task.data, **first}, left_out=None if first is read[0] else RowLeftOut.REPEATED)


def _read_task(row: Row) -> _Task:
    key = next((key for key in ("annotations", "completions") if key in row.fields), None)
    if "data" not in row.fields or key is None:
        return _read_minimal(row)
    data = as_object(row.place, "data", row.fields["data"])
    annotations = [as_object(row.place, "an annotation", item) for item in as_list(row.place, key, row.fields[key])]
    valid = [item for item in annotations if not item.get("was_cancelled") and not item.get("skipped")]
    chosen = [item for item in valid if item.get("ground_truth") or item.get("honeypot")] or valid
    return _Task(row.place, data, [_read_answer(row.place, item.get("result")) for item in chosen])


def _read_answer(place: str, result: Any) -> _Answer:
    answer = _Answer()
    for item in as_list(place, "result", result):
        found = as_object(place, "an item of result", item)
        kind, name = found.get("type"), str(found.get("from_name"))
        if kind == CHOICES:
            value = as_object(place, "value", found.get("value"))
            if "start" in value:
                raise SetupError(
                    f"{place}: the choices of {name!r} belong to spans; expected choices for the whole text"
                )
            answer.choices.setdefault(name, []).extend(as_list(place, CHOICES, value.get(CHOICES)))
        elif kind == LABELS:
            answer.spans.setdefault(name, []).append(as_object(place, "value", found.get("value")))
        elif isinstance(kind, str) and kind.endswith(LABELS):
            raise SetupError(
                f"{place}: {name!r} is of type {kind!r}; only spans of plain text are read (type 'labels')"
            )
    return answer


def _read_minimal(row: Row) -> _Task:
    answer = _Answer()
    for name, value in row.fields.items():
        if isinstance(value, dict) and CHOICES in value:
            answer.choices[name] = as_list(row.place, f"choices of {name!r}", value[CHOICES])
        elif isinstance(value, list) and value and all(isinstance(item, dict) and "start" in item for item in value):
            answer.spans[name] = value
    data = {name: value for name, value in row.fields.items() if name not in ABOUT}
    # A task that somebody looked at has an annotator, also where nothing was found in it.
    annotated = answer.choices or answer.spans or any(row.fields.get(key) is not None for key in DONE_BY)
    key = row.fields.get("id")
    return _Task(row.place, data, [answer] if annotated else [], key if isinstance(key, int | str) else None)


def _fields_of(task: _Task, answer: _Answer, choices: list[str], spans: list[str], columns: Columns) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in choices:
        found = answer.choices.get(name, [])
        if not all(isinstance(label, str) for label in found):
            raise SetupError(f"{task.place}: the choices of {name!r} should be texts, found {str(found)[:60]}")
        fields[name] = sorted(found) if name in answer.choices or name not in task.data else [task.data[name]]
    text = task.data.get(columns.text)
    for name in spans:
        read = [_read_span(task.place, item, text, columns) for item in answer.spans.get(name, [])]
        fields[name] = sorted(read, key=lambda span: (span[columns.start], span[columns.end], span[columns.span_label]))
    usual = Columns()
    if columns.label == usual.label and columns.label not in choices and len(choices) == 1:
        fields[columns.label] = fields[choices[0]]
    if columns.spans == usual.spans and columns.spans not in spans and len(spans) <= 1:
        fields[columns.spans] = fields[spans[0]] if spans else []
    if task.key is not None and columns.label not in fields and columns.label in task.data:
        fields[columns.label] = task.data[
            columns.label
        ]  # a single choice, written as it is; compared between annotators
    return fields


def _read_span(place: str, value: Any, text: Any, columns: Columns) -> dict[str, Any]:
    item = as_object(place, "a span", value)
    label = only_label(place, item.get(LABELS, item.get("label")))
    start, end = whole_offset(place, item.get("start")), whole_offset(place, item.get("end"))
    carried = item.get("text")
    begin, stop = find_stretch(place, text if isinstance(text, str) else "", start, end, carried)
    return make_span(columns, begin, stop, label)
