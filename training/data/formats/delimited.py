"""CSV and TSV. A quotation mark that belongs to a text encloses all rows up to the next mark: such a mark is refused."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ....runtime.errors import SetupError
from ...recipe.reading import Reading
from ..opening import open_text, suffix_of
from ..row import Row

MARK: Final = '"'
LONGEST_FIELD: Final = 2**31 - 1
"""Characters. The library's own limit of 128 KiB is less than a long document."""
ADVICE: Final = "set `quoting: none` where marks belong to the texts"
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_QUOTED: Final = re.compile(r'"([^"]*(?:""[^"]*)*)"?')


def read_delimited(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield the rows below the header; a row's place is the line where it begins.

    SetupError for a column name that stands twice, a row of another width than the header, text behind a closing mark,
    a mark that is never closed and, unless `quoting` is set, a mark that encloses a whole row.
    """
    records = _read_records(path, reading)
    line, header = next(records, (1, []))
    columns = _name_columns(f"{path}:{line}", header)
    for line, cells in records:
        if len(cells) != len(header):
            raise SetupError(f"{path}:{line}: expected {len(header)} columns as in the header, found {len(cells)}")
        yield Row(f"{path}:{line}", {name: cells[at] for name, at in columns.items()}, typed=False)


def _name_columns(place: str, header: list[str]) -> dict[str, int]:
    """Return the position of each column; those without a name are left out."""
    columns: dict[str, int] = {}
    for at, name in enumerate(cell.strip() for cell in header):
        if name in columns:
            raise SetupError(f"{place}: column {name!r} stands twice in the header; rename or remove one")
        if name:
            columns[name] = at
    return columns


def _read_records(path: Path, reading: Reading) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where a record begins, from 1, and its cells; empty lines are skipped."""
    tabs = reading.format == "tsv" or (reading.format is None and suffix_of(path) == ".tsv")
    delimiter = reading.delimiter or ("\t" if tabs else ",")
    quoting: Final = csv.QUOTE_NONE if reading.quoting == "none" else csv.QUOTE_MINIMAL
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
                _refuse_enclosed_rows(path, first, lines.record, delimiter, width)
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


def _quoted_fields(record: str, delimiter: str) -> Iterator[tuple[int, str, str]]:
    """Yield, for each quoted field of a record: where its mark opens, what is enclosed, and what follows it."""
    at = 0
    while at >= 0:
        if field := _QUOTED.match(record, at):
            at = field.end()
            yield field.start(), field.group(1), record[at : at + 1]
        at = record.find(delimiter, at) + 1 or -1


def _explain(path: Path, first: int, lines: list[str], delimiter: str, error: csv.Error) -> SetupError:
    record = "".join(lines)
    for at, enclosed, follows in _quoted_fields(record, delimiter):
        line = first + len(_LINE_END.findall(record[:at]))
        if not record[at + 1 + len(enclosed) :].startswith(MARK):
            return SetupError(f"{path}:{line}: a quotation mark opens here and is never closed; {ADVICE}")
        if follows and follows not in {delimiter, "\r", "\n"}:
            problem = f"the quotation mark that opens here is closed before {follows!r}, where a field cannot end"
            return SetupError(f"{path}:{line}: {problem}; double a mark inside a quoted field, or {ADVICE}")
    return SetupError(f"{path}:{first}: not a table of fields: {error}")


def _refuse_enclosed_rows(path: Path, first: int, lines: list[str], delimiter: str, width: int | None) -> None:
    """Raise SetupError for a quoted field in which a line, read alone, has as many cells as the header.

    In the header itself, whose `width` is not known yet, every enclosed line end is refused.
    """
    record = "".join(lines)
    for at, enclosed, _ in _quoted_fields(record, delimiter):
        within = _LINE_END.split(enclosed)
        whole = [line for line in within if line.strip() and width in {None, line.count(delimiter) + 1}]
        if len(within) > 1 and whole:
            line = first + len(_LINE_END.findall(record[:at]))
            raise SetupError(
                f"{path}:{line}: the quotation mark that opens here encloses {len(within)} lines, and {whole[0][:40]!r} "
                f"among them is a row by itself; {ADVICE}, `quoting: minimal` where they enclose texts of several lines"
            )
