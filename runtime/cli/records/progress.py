"""A progress bar over offsets, on a terminal only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """Shows the passed share of the offsets, and the number of processed records."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task, self._records = bar, task, 0

    def begin(self, total: int) -> None:
        """Restart over `total` offsets; the record count is kept."""
        self._bar.reset(self._task, total=total, records=self._records)

    def advance(self, offsets: int) -> None:
        self._bar.advance(self._task, offsets)

    def count(self, records: int) -> None:
        self._records += records
        self._bar.update(self._task, records=self._records)


@contextmanager
def progress_bar(what: str) -> Iterator[Bar]:
    """Show a bar on stderr while the block runs. `what` is the word after the number of records."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.fields[records]:,} " + what),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    task = bar.add_task("", total=None, records=0)
    with bar:
        yield Bar(bar, task)
