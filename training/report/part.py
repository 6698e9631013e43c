"""A part of the report that stands on the page and in `report.md` alike: facts by name and tables. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Fact = tuple[str, str]


@dataclass(frozen=True)
class Table:
    """Cells by row; the first `words` columns are words, the others numbers."""

    label: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


@dataclass(frozen=True)
class Group:
    """Facts and a table, with a heading of their own where the part has several."""

    name: str = ""
    facts: Sequence[Fact] = ()
    table: Table | None = None


@dataclass(frozen=True)
class Part:
    """What is said under a heading."""

    anchor: str
    title: str
    groups: Sequence[Group]
    notes: Sequence[str] = field(default=())


def as_markdown(part: Part) -> list[str]:
    """Return the part as lines of Markdown."""
    lines = [f"## {part.title}", ""]
    for group in part.groups:
        lines += [f"### {group.name}", ""] if group.name else []
        lines += [*(f"- {name}: {_plain(value)}" for name, value in group.facts), *([""] if group.facts else [])]
        lines += [*_table(group.table), ""] if group.table is not None else []
    for note in part.notes:
        lines += [note, ""]
    return lines


def _table(table: Table) -> Iterator[str]:
    yield _row(table.columns)
    yield f"|{' --- |' * len(table.columns)}"
    yield from (_row(row) for row in table.rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _plain(text: str) -> str:
    return " ".join(text.split())
