"""CoNLL: one token a line with its columns, an empty line behind each sentence."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ....runtime.errors import SetupError
from ...recipe.keys.reading import Columns, Reading
from ..opening import open_text
from ..row import Row
from ..tag_schemes import Scheme, TagError, find_scheme, to_iob2

DOCUMENT_START: Final = "-DOCSTART-"
_TAG: Final = re.compile(r"O|[A-Z]-.+")
_BLANKS: Final = re.compile(r"[ \t]+")  # other white space may belong to a token


@dataclass
class _Sentence:
    lines: list[int] = field(default_factory=list)
    cells: list[list[str]] = field(default_factory=list)
    document: int = 0
    """From 1; 0 in a file without boundaries of documents."""


@dataclass(frozen=True)
class _Layout:
    """Columns of a file: how many, and the indices of tokens and tags."""

    tabs: bool
    width: int
    token_at: int
    tag_at: int

    def split(self, line: str) -> list[str]:
        return [cell.strip(" ") for cell in line.split("\t")] if self.tabs else _BLANKS.split(line.strip(" \t"))

    def is_comment(self, line: str, cells: list[str]) -> bool:
        """Return whether a line in front of a sentence is a comment: `# ` and no token # with its tag."""
        return line.startswith("# ") and (len(cells) != self.width or not _TAG.fullmatch(cells[self.tag_at]))


def read_conll(path: Path, reading: Reading) -> Iterator[Row]:
    """Yield a row for each sentence: its tokens, and its tags in IOB2 whatever the scheme of the file.

    The recipe's `columns` name the columns of tokens and tags by number, from 1; without them the first and the last. Where
    the file has lines -DOCSTART-, the field `document` is the number of the document.
    """
    columns = reading.columns or Columns()
    with open_text(path) as file:
        lines = [line.rstrip("\r\n") for line in file]
    first = next((at for at, line in enumerate(lines) if _has_cells(line) and not line.startswith("# ")), None)
    if first is None:
        return
    layout = _find_layout(f"{path}:{first + 1}", lines[first], columns)
    sentences = list(_read_sentences(path, lines, layout))
    scheme = find_scheme(cells[layout.tag_at] for sentence in sentences for cells in sentence.cells)
    for sentence in sentences:
        fields: dict[str, object] = {
            columns.tokens: _take_tokens(path, sentence, layout.token_at),
            columns.tags: _convert_tags(path, sentence, layout.tag_at, scheme),
        }
        document = {"document": sentence.document} if sentence.document else {}
        yield Row(f"{path}:{sentence.lines[0]}", fields | document)


def _find_layout(place: str, line: str, columns: Columns) -> _Layout:
    cells = _Layout("\t" in line, 0, 0, 0).split(line)
    if len(cells) < 2:
        raise SetupError(f"{place}: expected a token and its tag, found {cells[0][:40]!r} alone")
    token_at = _choose_column(place, "tokens", columns.tokens, 1, len(cells))
    tag_at = _choose_column(place, "tags", columns.tags, len(cells), len(cells))
    if token_at == tag_at:
        raise SetupError(f"{place}: expected a column of tokens and one of tags, found column {tag_at + 1} for both")
    return _Layout("\t" in line, len(cells), token_at, tag_at)


def _read_sentences(path: Path, lines: list[str], layout: _Layout) -> Iterator[_Sentence]:
    sentence, document = _Sentence(), 0
    for number, line in enumerate(lines, 1):
        cells = layout.split(line)
        if not _has_cells(line):
            if sentence.cells:
                yield sentence
            document += cells[0] == DOCUMENT_START
            sentence = _Sentence(document=document)
        elif sentence.cells or not layout.is_comment(line, cells):
            if len(cells) != layout.width:
                found = f"found {len(cells)}"
                raise SetupError(f"{path}:{number}: expected {layout.width} columns as in the first row, {found}")
            sentence.lines.append(number)
            sentence.cells.append(cells)
    if sentence.cells:
        yield sentence


def _has_cells(line: str) -> bool:
    return bool(line.strip(" \t")) and _BLANKS.split(line)[0] != DOCUMENT_START


def _choose_column(place: str, key: str, named: str, default: int, width: int) -> int:
    """Return the index of a column; `named` is the recipe's number, or the key itself where it names none."""
    if named != key and not named.isdecimal():
        raise SetupError(
            f"{place}: columns.{key} is {named!r}; expected a number from 1 on, as CoNLL's columns have no names"
        )
    number = default if named == key else int(named)
    if not 1 <= number <= width:
        raise SetupError(
            f"{place}: columns.{key} is {number}; expected a number from 1 to {width}, the columns of the file"
        )
    return number - 1


def _take_tokens(path: Path, sentence: _Sentence, token_at: int) -> list[str]:
    tokens = [cells[token_at] for cells in sentence.cells]
    for line, token in zip(sentence.lines, tokens, strict=True):
        if not token.strip():
            raise SetupError(f"{path}:{line}: the token is empty (column {token_at + 1})")
    return tokens


def _convert_tags(path: Path, sentence: _Sentence, tag_at: int, scheme: Scheme) -> list[str]:
    try:
        return to_iob2([cells[tag_at] for cells in sentence.cells], scheme)
    except TagError as error:
        raise SetupError(f"{path}:{sentence.lines[error.position]}: {error}") from None
