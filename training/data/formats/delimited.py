"""CSV and TSV. A quotation mark that belongs to a text encloses all rows up to the next mark: such a mark is refused."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from ....runtime.errors import SetupError
from ....runtime.model.texts.words import trim_blanks
from ...recipe.keys.reading import Reading
from ..opening import open_text, suffix_of
from ..row import Row

MARK: Final = '"'
QUOTINGS: Final[dict[str, Literal[0, 3]]] = {"minimal": csv.QUOTE_MINIMAL, "none": csv.QUOTE_NONE}
LONGEST_FIELD: Final = 2**31 - 1
"""Characters. The library's own limit of 128 KiB is less than a long document."""
ADVICE: Final = "set `quoting: none` where marks belong to the texts"
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_QUOTED: Final = re.compile(r'"([^"]*(?:""[^"]*)*)"?')


def read_delimited(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield the rows below the header; a row's place is the line where it begins.

    SetupError for a column name that stands twice, a row of another width than the header, a row that repeats the header,
    text behind a closing mark, a mark that is never closed and, unless `quoting` is set, a mark that merges rows.
    """
    records = _read_records(path, reading)
    line, header = next(records, (1, []))
    columns = _name_columns(f"{path}:{line}", header)
    for line, cells in records:
        if len(cells) != len(header):
            raise SetupError(f"{path}:{line}: expected {len(header)} columns as in the header, found {len(cells)}")
        refuse_repeated_header(f"{path}:{line}", cells, header)
        yield Row(f"{path}:{line}", {name: cells[at] for name, at in columns.items()}, typed=False)


def _name_columns(place: str, header: list[str]) -> dict[str, int]:
    """Return the position of each column; those without a name are left out."""
    columns: dict[str, int] = {}
    for at, name in enumerate(trim_blanks(cell) for cell in header):
        if name in columns:
            raise SetupError(f"{place}: column {name!r} stands twice in the header; rename or remove one")
        if name:
            columns[name] = at
    return columns


def refuse_repeated_header(place: str, cells: Sequence[object], header: Sequence[str]) -> None:
    """Raise SetupError for a row of column names: files with a header each were joined."""
    pairs = zip(cells, header, strict=True)
    if all(cell is not None and trim_blanks(str(cell)) == trim_blanks(name) for cell, name in pairs):
        raise SetupError(f"{place}: the header stands here again, as where files were joined; remove this row")


def _read_records(path: Path, reading: Reading) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where a record begins, from 1, and its cells; empty lines are skipped."""
    tabs = reading.format == "tsv" or (reading.format is None and suffix_of(path) == ".tsv")
    delimiter = reading.delimiter or ("\t" if tabs else ",")
    quoting: Final = QUOTINGS[reading.quoting or "minimal"]
    csv.field_size_limit(LONGEST_FIELD)
    width = None
    with open_text(path) as file:
        lines = _RecordedLines(file)
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        while True:
            first = lines.begin_record()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise _explain(path, first, lines.record, delimiter, error) from None
            if reading.quoting is None and len(lines.record) > 1:
                _refuse_merged_rows(path, first, lines.record, delimiter, width)
            if cells:
                width = width or len(cells)
                yield first, cells


class _RecordedLines:
    """Lines of a file, and those of the record that is being read."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._count = 0
        self.record: list[str] = []

    def begin_record(self) -> int:
        """Forget the record before. Return the number of the next line, from 1."""
        self.record.clear()
        return self._count + 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._count += 1
        self.record.append(line)
        return line


class _QuotedField(NamedTuple):
    """A field of a record in quotation marks."""

    number: int
    """From 0."""
    opens: int
    """Where its mark stands in the record."""
    enclosed: str
    follows: str
    """The character behind it."""


def _find_quoted_fields(record: str, delimiter: str) -> Iterator[_QuotedField]:
    at = number = 0
    while at >= 0:
        if field := _QUOTED.match(record, at):
            at = field.end()
            yield _QuotedField(number, field.start(), field.group(1), record[at : at + 1])
        at, number = record.find(delimiter, at) + 1 or -1, number + 1


def _explain(path: Path, first: int, lines: list[str], delimiter: str, error: csv.Error) -> SetupError:
    record = "".join(lines)
    for field in _find_quoted_fields(record, delimiter):
        line = first + len(_LINE_END.findall(record[: field.opens]))
        if not record[field.opens + 1 + len(field.enclosed) :].startswith(MARK):
            return SetupError(f"{path}:{line}: a quotation mark opens here and is never closed; {ADVICE}")
        if field.follows and field.follows not in {delimiter, "\r", "\n"}:
            problem = f"the quotation mark that opens here is closed before {field.follows!r}, where a field cannot end"
            return SetupError(f"{path}:{line}: {problem}; double a mark inside a quoted field, or {ADVICE}")
    return SetupError(f"{path}:{first}: not a table of fields: {error}")


def _refuse_merged_rows(path: Path, first: int, lines: list[str], delimiter: str, width: int | None) -> None:
    record = "".join(lines)
    for field in _find_quoted_fields(record, delimiter):
        line = first + len(_LINE_END.findall(record[: field.opens]))
        refuse_merged_rows(f"{path}:{line}", field.enclosed, field.number, delimiter, width)


def refuse_merged_rows(place: str, enclosed: str, number: int, delimiter: str, width: int | None) -> None:
    """Raise SetupError for a quoted field whose lines are rows of `width` cells when its marks are taken as text.

    That is so where an enclosed line has as many cells as a row, and where the first and the last one, with the fields before
    and behind field `number`, have. In the header itself, whose width is not known yet, every enclosed line end is refused.
    """
    lines = _LINE_END.split(enclosed)
    if len(lines) == 1:
        return
    filled = [line for line in lines if line.strip()]
    found = next((line for line in filled if width in {None, line.count(delimiter) + 1}), None)
    if found is not None:
        problem = f"encloses {len(lines)} lines, and {found[:40]!r} among them is a row by itself"
    elif filled == [lines[0], lines[-1]] and _complete_rows(lines[0], lines[-1], number, delimiter, width):
        problem = f"encloses {len(lines)} lines, and each of them, with what is in front and behind, is a row by itself"
    else:
        return
    raise SetupError(
        f"{place}: the quotation mark that opens here {problem}; {ADVICE}, `quoting: minimal` where they enclose texts of "
        "several lines"
    )


def _complete_rows(first: str, last: str, number: int, delimiter: str, width: int | None) -> bool:
    """Return whether a row ends with the first line and another begins with the last one, both of `width` cells."""
    return width == number + first.count(delimiter) + 1 and last.count(delimiter) == number
