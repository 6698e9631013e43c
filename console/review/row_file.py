"""A file of texts without labels that people fill in: read once, and written back whole."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any, Final

from ...runtime.errors import SetupError
from ...runtime.model.inputs import Input
from ...schemas.manifest import TaskSpec
from ...training.data.files import find_format, read_rows
from ...training.data.opening import open_text, suffix_of
from ...training.data.row import Row
from ...training.recipe.keys.reading import Reading
from ...training.suggest.rows import GUESS, SCORE, Form

_DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
_LINES: Final = (".jsonl",)


class RowFile:
    """The rows of a CSV, TSV or JSON lines file. Raises SetupError for another kind of file, and for one without texts.

    Columns and order stay. Of JSON lines only those change whose label does; a table is written anew.
    """

    def __init__(self, path: Path, spec: TaskSpec) -> None:
        suffix = suffix_of(path)
        if path.suffix != suffix or suffix not in {*_DELIMITERS, *_LINES}:
            raise SetupError(f"--file {path}: expected a file that ends with .csv, .tsv or .jsonl")
        self.path, self.form = path, Form(spec)
        self._real = path.resolve()
        if suffix in _DELIMITERS and self.form.target != self.form.label:
            raise SetupError(
                f"--file {path}: a cell holds one label, and task {spec.name} tags; use JSON lines (.jsonl)"
            )
        self._is_table = find_format(path, Reading()) in {"csv", "tsv"}
        self._stamp = self._look()
        self.rows = list(read_rows(path, Reading()))
        self._lines: list[str] = []
        if not self._is_table:
            with open_text(path) as file:
                self._lines = list(file)
        self._before: dict[int, Any] = {}

    def unlabelled(self) -> list[int]:
        """Return the numbers of the rows without a label."""
        return [at for at, row in enumerate(self.rows) if _is_blank(row.fields.get(self.form.target))]

    def read(self, at: int) -> Input:
        """Return the text of a row. SetupError for a row without one."""
        return self.form.read(self.rows[at])

    def guess(self, at: int) -> tuple[Any, float | None]:
        """Return the guess and its score that the file has; None where it has none."""
        fields = self.rows[at].fields
        value = fields.get(GUESS)
        try:
            score = float(fields.get(SCORE) or "nan")
        except (TypeError, ValueError):
            score = float("nan")
        return (value if value not in ("", None) else None), score if 0 <= score <= 1 else None

    def fill(self, at: int, value: Any) -> None:
        """Set the label of a row, or with None what stood there before."""
        row = self.rows[at]
        before = self._before.setdefault(at, row.fields.get(self.form.target))
        row.fields[self.form.target] = before if value is None else value
        if not self._is_table:
            number = int(row.place.rpartition(":")[2]) - 1
            end = self._lines[number][len(self._lines[number].rstrip("\r\n")) :]
            self._lines[number] = _write_line(row.fields) + end

    def save(self) -> None:
        """Write the file atomically, with its permissions, and where a link leads. Raises SetupError where another program has changed it, or it cannot be written."""
        if self._look() != self._stamp:
            raise SetupError(f"{self.path} was changed by another program, so it is not written: start again with it")
        draft = self._real.with_name(f"{self._real.name}.part")
        try:
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            with draft.open("w", encoding="utf-8", newline="") as file:
                if self._is_table:
                    self._write_table(file)
                else:
                    file.writelines(self._lines)
            shutil.copymode(self._real, draft)
            draft.replace(self._real)
        except UnicodeEncodeError as error:
            raise SetupError(f"{self.path} cannot be written as UTF-8: {error.reason}") from None
        except OSError as error:
            raise SetupError(f"{self.path} cannot be written: {error.strerror or error}") from None
        self._stamp = self._look()

    def _write_table(self, file: Any) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row.fields))
        delimiter = _DELIMITERS[suffix_of(self.path)]
        writer = csv.DictWriter(file, columns, delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_cells(row) for row in self.rows)

    def _look(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except OSError as error:
            raise SetupError(f"--file {self.path}: {error.strerror or error}") from None
        return found.st_mtime_ns, found.st_size


def _write_line(fields: dict[str, Any]) -> str:
    """Return a row as JSON; one with half a surrogate pair, which UTF-8 has not, with escapes."""
    line = json.dumps(fields, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(fields)
    return line


def _cells(row: Row) -> dict[str, Any]:
    return {name: "" if value is None else value for name, value in row.fields.items()}


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
