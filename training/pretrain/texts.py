"""The texts of a pre-training: documents of one text or more in their order, and pairs that mean the same."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from ...runtime.errors import SetupError
from ..data.fields import check_text
from ..data.files import find_format, find_source, read_rows
from ..data.formats.json_rows import read_items, read_json_lines
from ..data.formats.lines import DOCUMENT
from ..data.opening import suffix_of
from ..data.replies import REPLY, TURNS
from ..data.row import Row
from ..prepare.label_names import name_rows, with_place_of_name
from ..prepare.selection import is_selected
from ..prepare.tasks import TaskData, originals
from ..recipe.keys.pretraining import PairSource, TextSource
from ..recipe.keys.reading import Reading

DATA_SET: Final = "dataset.json"
"""In the folder of a data set that `murmura ingest` made."""
LINES: Final = "lines"
DIALOGUES: Final = ("dialogues", "sgd")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Text:
    """A text, and where it stands."""

    text: str
    place: str


Document = Sequence[Text]
"""One text or more that follow each other."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that mean the same; `negative` does not."""

    text: str
    other: str
    negative: str | None
    place: str


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text of one label, which is one of a task by its number."""

    text: str
    task: int
    label: str
    place: str


def labelled_of(tasks: Iterable[TaskData]) -> list[LabelledText]:
    """Return the training rows of classifications, each once, and the names of their labels."""
    found = []
    for at, data in enumerate(tasks):
        if not data.kind.is_regression:
            continue
        rows = [*(row for row in originals(data.train) if not row.soft), *map(with_place_of_name, name_rows(data))]
        found += [LabelledText(row.text, at, row.labels[0], row.place) for row in rows]
    return found


def read_documents(sources: Iterable[TextSource], folder: Path, *, seed: int) -> list[Document]:
    """Read all sources in their order; blank turns are left out. SetupError for a source that is not there or has no text."""
    found: list[Document] = []
    for source in sources:
        path = find_source(folder, source.path)
        documents = [document for document in _documents(path, source) if document]
        if not documents:
            raise SetupError(f"{path}: no texts; expected some in {source.column!r}")
        found += _drawn(documents, source.rows, seed)
    return found


def documents_of(tasks: Iterable[TaskData]) -> list[Document]:
    """Return the training texts of tasks, each once: two texts of a row are a document of two."""
    rows = {(each.text, each.second): each.place for task in tasks for each in task.train if each.text.strip()}
    return [[Text(text, place) for text in given if text] for given, place in rows.items()]


def read_pairs(sources: Iterable[PairSource], folder: Path, *, seed: int) -> list[Pair]:
    """Read all sources of pairs in their order. SetupError for a row without one of its texts."""
    found: list[Pair] = []
    for source in sources:
        path = find_source(folder, source.path)
        reading = Reading(format=source.format, where=source.where)
        pairs = [_pair(row, source) for row in read_rows(path, reading) if is_selected(row, reading)]
        if not pairs:
            raise SetupError(f"{path}: no pairs of texts{' are left by `where`' if source.where else ''}")
        found += _drawn(pairs, source.rows, seed)
    return found


def _pair(row: Row, source: PairSource) -> Pair:
    columns = [source.columns.text, source.columns.text_pair]
    text, other = (check_text(row, row.need(column), f"column {column!r}") for column in columns)
    has_negative = source.negative is not None and row.has(source.negative)
    negative = check_text(row, row.need(source.negative), "the negative") if has_negative and source.negative else None
    return Pair(text, other, negative, row.place)


def _drawn(found: list[T], count: int | None, seed: int) -> list[T]:
    if count is None or count >= len(found):
        return found
    return [found[at] for at in sorted(random.Random(seed).sample(range(len(found)), count))]


def _documents(path: Path, source: TextSource) -> Iterator[Document]:
    if (path / DATA_SET).is_file():
        return _of_feedback(path)
    reading = Reading(format=source.format or (LINES if suffix_of(path) == ".txt" else None))
    name = find_format(path, reading)
    if name in DIALOGUES:
        return (list(_turns(Row(place, _object(place, item)))) for place, item in read_items(path))
    rows = read_rows(path, reading)
    return _grouped(rows, source, source.group or (DOCUMENT if name == LINES else None))


def _grouped(rows: Iterable[Row], source: TextSource, group: str | None) -> Iterator[Document]:
    if group is None:
        return (list(_of_row(row, source.column)) for row in rows)
    documents: dict[str, list[Text]] = {}
    for row in rows:
        documents.setdefault(repr(row.need(group)), []).extend(_of_row(row, source.column))
    return iter(documents.values())


def _of_row(row: Row, column: str) -> Iterator[Text]:
    if not row.has(column) and row.has(TURNS):
        yield from _turns(row)
        return
    found = row.need(column)
    for text in found if isinstance(found, list) else [found]:
        yield Text(check_text(row, text, f"column {column!r}"), row.place)


def _turns(row: Row) -> Iterator[Text]:
    turns = row.need(TURNS)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise SetupError(f"{row.place}: {TURNS!r} should be a list of turns, found {repr(turns)[:80]}")
    for turn in turns:
        text = turn.get("text", turn.get("utterance"))
        if not isinstance(text, str) or text.strip():
            yield Text(check_text(row, text, "a turn's text"), row.place)
    if row.has(REPLY):
        yield Text(check_text(row, row.need(REPLY), "the reply"), row.place)


def _of_feedback(folder: Path) -> Iterator[Document]:
    """Yield the texts of requests whose senders' feedback consents to training, each once; what is held out is not read."""
    seen: set[tuple[str, ...]] = set()
    for path in sorted([*folder.glob("*.train.jsonl"), *folder.glob("preferences.jsonl")]):
        for row in read_json_lines(path, Reading()):
            if row.fields.get("part", "train") != "train":
                continue
            document = [*_of_row(row, "text")]
            if row.has("text_pair"):
                document.append(Text(check_text(row, row.need("text_pair"), "the second text"), row.place))
            if (key := tuple(one.text for one in document)) not in seen:
                seen.add(key)
                yield document


def _object(place: str, item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise SetupError(f"{place}: expected a dialogue, an object with {TURNS!r}, found {type(item).__name__}")
    return item
