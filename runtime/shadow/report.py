"""Says from the records of `murmura.shadow` how much was compared in each hour, and how much of it agreed. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from ...schemas.shadow import ShadowCounts, ShadowDifference, ShadowRecord

Change = tuple[str, str, str]
"""A task, the answer of the current version and that of the compared one."""

HOUR_COLUMNS: Final = ("hour (UTC)", "answered", "of the share", "compared", "share compared", "agreed")
TASK_COLUMNS: Final = ("task", "compared", "agreed")
CHANGE_COLUMNS: Final = ("task", "current", "compared", "requests")

_MOST_CHANGES: Final = 10_000
_MOST_HOURS: Final = 400
"""More than the topic keeps; the oldest leave first."""
_MOST_TASKS: Final = 200
_ANSWER_CHARACTERS: Final = 200
_LISTED_CHANGES: Final = 20


@dataclass(slots=True)
class ComparedHour:
    """Records of an hour, of all processes."""

    answered: int = 0
    """Those that the current version answered."""
    chosen: int = 0
    """Those of the share."""
    compared: int = 0
    agreed: int = 0

    @property
    def compared_share(self) -> float:
        """The part of the chosen ones that was compared; the device was busy for the others, or they did not fit."""
        return self.compared / self.chosen if self.chosen else 0.0


@dataclass(slots=True)
class ShadowReport:
    """What was found about one version. `hours` by their beginning in UTC, of the end of each count."""

    name: str
    candidate: int
    hours: dict[datetime, ComparedHour] = field(default_factory=dict)
    tasks: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By task: compared and agreed."""
    changes: Counter[Change] = field(default_factory=Counter)
    """The first `most_changes` different ones, their answers cut after 200 characters."""
    other_changes: int = 0
    """Answers that changed in a way that is not among `changes`."""
    most_changes: int = _MOST_CHANGES
    left_out: Counter[str] = field(default_factory=Counter)
    """Records that were not compared: dropped, too_long, failed."""

    def add(self, record: ShadowRecord) -> None:
        """Add a record; one about another version changes nothing."""
        found = record.root
        if (found.model.name, found.model.candidate) != (self.name, self.candidate):
            return
        if isinstance(found, ShadowCounts):
            _add_counts(self, found)
        else:
            _add_difference(self, found)


def report_shadow(records: Iterable[ShadowRecord], name: str, candidate: int) -> ShadowReport:
    """Sum up the records about a version of a model."""
    report = ShadowReport(name, candidate)
    for record in records:
        report.add(record)
    return report


def _add_counts(report: ShadowReport, counts: ShadowCounts) -> None:
    hour = report.hours.setdefault(counts.until.replace(minute=0, second=0, microsecond=0), ComparedHour())
    hour.answered += counts.answered
    hour.chosen += counts.chosen
    hour.compared += counts.compared
    hour.agreed += counts.agreed
    if len(report.hours) > _MOST_HOURS:
        del report.hours[min(report.hours)]
    report.left_out.update(dropped=counts.dropped, too_long=counts.too_long, failed=counts.failed)
    for name, task in counts.tasks.items():
        if name in report.tasks or len(report.tasks) < _MOST_TASKS:
            compared, agreed = report.tasks.get(name, (0, 0))
            report.tasks[name] = compared + task.compared, agreed + task.agreed


def _add_difference(report: ShadowReport, difference: ShadowDifference) -> None:
    for name, task in difference.tasks.items():
        if task.agrees:
            continue
        change = name, task.current.answer[:_ANSWER_CHARACTERS], task.candidate.answer[:_ANSWER_CHARACTERS]
        if change in report.changes or len(report.changes) < report.most_changes:
            report.changes[change] += 1
        else:
            report.other_changes += 1


def hour_cells(report: ShadowReport) -> list[tuple[str, ...]]:
    """Return the cells of each hour, under `HOUR_COLUMNS`, the oldest first."""
    return [
        (
            f"{hour:%Y-%m-%d %H:00}",
            f"{each.answered:,}",
            f"{each.chosen:,}",
            f"{each.compared:,}",
            f"{each.compared_share:.1%}",
            _ratio(each.agreed, each.compared),
        )
        for hour, each in sorted(report.hours.items())
    ]


def task_cells(report: ShadowReport) -> list[tuple[str, ...]]:
    """Return the cells of each task, under `TASK_COLUMNS`."""
    return [
        (task, f"{compared:,}", _ratio(agreed, compared)) for task, (compared, agreed) in sorted(report.tasks.items())
    ]


def change_cells(report: ShadowReport) -> list[tuple[str, ...]]:
    """Return the cells of the 20 most frequent changes, under `CHANGE_COLUMNS`."""
    return [(*change, f"{times:,}") for change, times in report.changes.most_common(_LISTED_CHANGES)]


def describe_rest(report: ShadowReport) -> list[str]:
    """Return sentences on what the tables lack: changes that are not listed, and records that were not compared."""
    sentences = []
    listed = report.changes.most_common(_LISTED_CHANGES)
    others = report.changes.total() - sum(times for _, times in listed) + report.other_changes
    if others:
        sentences.append(f"Other changes: {others:,}.")
    if left_out := [f"{records:,} {why}" for why, records in report.left_out.items() if records]:
        sentences.append("Not compared: " + ", ".join(left_out) + ".")
    return sentences


def format_report(report: ShadowReport) -> list[str]:
    """Return the report as lines of Markdown."""
    lines = [f"# {report.name} {report.candidate}, only compared"]
    tables = (
        (HOUR_COLUMNS, hour_cells(report)),
        (TASK_COLUMNS, task_cells(report)),
        (CHANGE_COLUMNS, change_cells(report)),
    )
    for columns, rows in tables:
        if rows or columns is not CHANGE_COLUMNS:
            lines += ["", _format_row(columns), "| --- " * len(columns) + "|", *map(_format_row, rows)]
    for sentence in describe_rest(report):
        lines += ["", sentence]
    return lines


def _format_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
