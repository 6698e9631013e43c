"""Rows of data files become examples of a task. Every complaint names the file and the line."""

import csv
import gzip
import io
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from ..runtime.errors import SetupError
from .recipe import Columns, Reading, Source, Task


@dataclass(slots=True, frozen=True)
class Span:
    """A labelled stretch of a text; code points, `end` exclusive."""

    start: int
    end: int
    label: str


@dataclass(slots=True, frozen=True)
class Example:
    """One text with what it should be answered. `labels` for sentence tasks, `spans` for tagging."""

    text: str
    labels: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    words: tuple[tuple[int, int], ...] | None = None
    """Tagging rows that came as tokens: where each token lies in the text."""
    where: str = field(default="", compare=False)
    """File and line, for complaints."""
    soft: Literal["all", "own"] | None = field(default=None, compare=False)
    """Learned from what the model answered when it began, not from its label; see recipe.Source."""


@dataclass(slots=True, frozen=True)
class _Row:
    where: str
    fields: dict[str, Any]

    def need(self, column: str) -> Any:
        """Return the column; SetupError when the row has none."""
        if column in self.fields and self.fields[column] is not None:
            return self.fields[column]
        found = ", ".join(self.fields) or "nothing"
        raise SetupError(f"{self.where}: column {column!r} is missing; found {found}")


def read_part(
    sources: Iterable[Source], task: Task, folder: Path, *, seed: int, training: bool = False
) -> list[Example]:
    """Read all sources of one part of a task in their order. `training` applies `repeat` and `typo_copies`."""
    examples: list[Example] = []
    for source in sources:
        found = _read_source(source, task, folder, seed)
        if training:
            slips = random.Random(seed)
            copies = _typo_copies(found, source.typo_copies, slips) if task.kind != "tagging" else []
            found = found * source.repeat + copies
            if source.soft:
                found = [replace(example, soft=source.soft) for example in found]
        examples.extend(found)
    return examples


def _read_source(source: Source, task: Task, folder: Path, seed: int) -> list[Example]:
    path = _find(folder, source.path)
    reading = _merged(source, task)
    rows = [row for row in _rows(path) if _selected(row, reading)]
    if not rows:
        raise SetupError(f"{path}: no rows{' left after where/unless' if reading.where or reading.unless else ''}")
    made = (_example(row, source, task, reading) for row in rows)
    examples = [example for example in made if example is not None]
    if not examples:
        raise SetupError(f"{path}: no row is left after one_of, merge and rest")
    if source.rows is not None and len(examples) > source.rows:
        # Drawn, not cut: files are often sorted by label.
        random.Random(seed).shuffle(examples)
        examples = examples[: source.rows]
    return examples


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise SetupError(f"{folder / name}: no such file; paths in a recipe are relative to --data")


def _merged(source: Source, task: Task) -> Reading:
    own = source.model_dump(include=set(Reading.model_fields), exclude_none=True)
    base = task.model_dump(include=set(Reading.model_fields), exclude_none=True)
    return Reading.model_validate({**base, **own})


def _rows(path: Path) -> Iterator[_Row]:
    with _open(path) as file:
        try:
            yield from _csv_rows(path, file) if _suffix(path) in {".csv", ".tsv"} else _json_rows(path, file)
        except UnicodeDecodeError as error:
            raise SetupError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
        except (gzip.BadGzipFile, EOFError) as error:
            raise SetupError(f"{path}: a damaged gzip file: {error}") from None


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _csv_rows(path: Path, file: TextIO) -> Iterator[_Row]:
    reader = csv.DictReader(file, dialect="excel-tab" if _suffix(path) == ".tsv" else "excel")
    for fields in reader:
        if None in fields or None in fields.values():
            raise SetupError(
                f"{path}:{reader.line_num}: expected {len(reader.fieldnames or ())} columns as in the header"
            )
        yield _Row(f"{path}:{reader.line_num}", dict(fields))


def _json_rows(path: Path, file: TextIO) -> Iterator[_Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise SetupError(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise SetupError(f"{path}:{number}: expected an object, found {type(fields).__name__}")
        yield _Row(f"{path}:{number}", fields)


def _selected(row: _Row, reading: Reading) -> bool:
    # Compared as text too: a CSV knows no numbers.
    def has(column: str, values: list[Any]) -> bool:
        value = row.need(column)
        return value in values or str(value) in {str(v) for v in values}

    wanted = all(has(column, values) for column, values in (reading.where or {}).items())
    return wanted and not any(has(column, values) for column, values in (reading.unless or {}).items())


def _example(row: _Row, source: Source, task: Task, reading: Reading) -> Example | None:
    columns = reading.columns or Columns()
    if task.kind == "tagging":
        return _tagging_example(row, columns, reading)
    text = _text(row, row.need(columns.text))
    if source.label is not None:
        return Example(text, (source.label,), where=row.where)
    labels = _labels(row, columns.label)
    if reading.one_of is not None:
        labels = [label for label in labels if not reading.one_of or label in reading.one_of]
        if len(labels) != 1:
            return None
    labels = _renamed(row, labels, reading)
    if task.kind == "multi_label":
        return Example(text, tuple(sorted(set(labels))), where=row.where)
    if not labels and reading.rest == "drop":
        return None
    if len(labels) != 1:
        raise SetupError(f"{row.where}: expected one label, found {len(labels)}; one_of keeps rows with exactly one")
    return Example(text, (labels[0],), where=row.where)


def _text(row: _Row, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SetupError(f"{row.where}: the text is {'empty' if isinstance(value, str) else type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SetupError(f"{row.where}: the text has a lone surrogate") from None
    return value


def _labels(row: _Row, column: str) -> list[str]:
    value = row.need(column)
    if isinstance(value, list) and all(isinstance(label, str) for label in value):
        return list(value)
    if isinstance(value, str | int) and str(value).strip():
        return [str(value)]
    raise SetupError(f"{row.where}: {column!r} should be a label or a list of labels, found {str(value)[:40]!r}")


def _renamed(row: _Row, labels: list[str], reading: Reading) -> list[str]:
    if not reading.merge:  # also the empty mapping of a source whose task has one
        return labels
    to = {old: new for new, olds in reading.merge.items() for old in olds}
    rest = reading.rest or "error"
    unnamed = [label for label in labels if label not in to]
    if unnamed and rest == "error":
        raise SetupError(f"{row.where}: label {unnamed[0]!r} is not in merge; name it there or set rest: keep or drop")
    return [to.get(label, label) for label in labels if label in to or rest == "keep"]


def _tagging_example(row: _Row, columns: Columns, reading: Reading) -> Example:
    if columns.tokens in row.fields:
        return _from_tokens(row, columns, reading)
    text = _text(row, row.need(columns.text))
    spans = []
    for item in row.need(columns.spans):
        try:
            start, end, label = int(item[columns.start]), int(item[columns.end]), str(item[columns.span_label])
        except (KeyError, TypeError, ValueError):
            keys = f"{columns.start}, {columns.end}, {columns.span_label}"
            raise SetupError(f"{row.where}: a span needs {keys}; found {str(item)[:60]}") from None
        if not 0 <= start < end <= len(text):
            raise SetupError(f"{row.where}: span {start}..{end} does not lie in a text of {len(text)} characters")
        spans += [Span(start, end, name) for name in _renamed(row, [label], reading)]
    return Example(text, spans=_disjoint(spans), where=row.where)


def _disjoint(spans: list[Span]) -> tuple[Span, ...]:
    """Of overlapping spans keep the longest: one tag a word can say no more."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start - s.end, s.start)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return tuple(sorted(kept, key=lambda s: s.start))


def _from_tokens(row: _Row, columns: Columns, reading: Reading) -> Example:
    tokens, tags = row.need(columns.tokens), row.need(columns.tags)
    if isinstance(tokens, str) and isinstance(tags, str):
        tokens, tags = tokens.split(), tags.split()
    if not tokens or len(tokens) != len(tags):
        raise SetupError(
            f"{row.where}: {len(tokens)} tokens and {len(tags)} tags; expected as many of both, at least one"
        )
    words, at = [], 0
    for token in tokens:
        words.append((at, at + len(token)))
        at += len(token) + 1
    spans: list[Span] = []
    before = "O"
    for (start, end), tag in zip(words, tags, strict=True):
        if tag != "O" and tag[:2] not in {"B-", "I-"}:
            raise SetupError(f"{row.where}: tag {tag!r} is not BIO (O, B-x or I-x)")
        if tag[:2] == "I-" and before[2:] == tag[2:]:
            spans[-1] = Span(spans[-1].start, end, spans[-1].label)
        elif tag != "O":
            spans.append(Span(start, end, tag[2:]))
        before = tag
    named = tuple(Span(s.start, s.end, new) for s in spans for new in _renamed(row, [s.label], reading))
    return Example(_text(row, " ".join(tokens)), spans=named, words=tuple(words), where=row.where)


def _typo_copies(examples: list[Example], share: float, slips: random.Random) -> list[Example]:
    count = round(share * len(examples))
    chosen = slips.choices(examples, k=count) if count else []
    return [Example(_with_slip(e.text, slips), e.labels, where=e.where) for e in chosen]


def _with_slip(text: str, slips: random.Random) -> str:
    """Swap, drop or double one letter in about every sixth word."""
    words = text.split(" ")
    for index, word in enumerate(words):
        if len(word) < 3 or slips.random() > 1 / 6:
            continue
        at = slips.randrange(len(word) - 1)
        words[index] = slips.choice(
            [
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + word[at + 1 :],
                word[: at + 1] + word[at:],
            ]
        )
    return " ".join(words)
