"""Progress bars of an ingest."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from .make import Progress
from .manifest import ROLES, Plan


@contextmanager
def show_progress(plan: Plan, quiet: bool) -> Iterator[Progress]:
    """Show a bar for each stage, on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as shown:
        totals = {role: sum(each.records for each in plan.of(role)) for role in ROLES}
        stages: dict[str, TaskID] = {
            role: shown.add_task(role, total=total)
            for role, total in totals.items()
            if total or role not in {"reviews", "replies"}
        }
        stages["joining"] = shown.add_task("joining", total=totals["feedback"])
        yield lambda stage, records: shown.advance(stages[stage], records)
