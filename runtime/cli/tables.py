"""Tables on a terminal, tab-separated lines in a pipe."""

from typing import Any

import typer


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on a terminal, else tab-separated lines."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(*columns, show_header=any(columns), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    console.print(table)


def _style(cell: str) -> Any:
    return {"ok": "green", "absent": "dim", "refused": "bold red"}.get(cell, "")
