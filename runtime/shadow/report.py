"""Says from the records of `murmura.shadow` how much was compared in each hour, and how much of it agreed. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from ...schemas.shadow import ShadowCounts, ShadowDifference, ShadowRecord

Change = tuple[str, str, str]
"""A task, the answer of the current version and that of the compared one."""

_MOST_CHANGES = 10_000


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
    report.left_out.update(dropped=counts.dropped, too_long=counts.too_long, failed=counts.failed)
    for name, task in counts.tasks.items():
        compared, agreed = report.tasks.get(name, (0, 0))
        report.tasks[name] = compared + task.compared, agreed + task.agreed


def _add_difference(report: ShadowReport, difference: ShadowDifference) -> None:
    for name, task in difference.tasks.items():
        change = name, task.current.answer, task.candidate.answer
        if not task.agrees and (change in report.changes or len(report.changes) < _MOST_CHANGES):
            report.changes[change] += 1


def format_report(report: ShadowReport) -> list[str]:
    """Return the report as lines of Markdown."""
    lines = [f"# {report.name} {report.candidate}, only compared", ""]
    lines += ["| hour (UTC) | answered | of the share | compared | share compared | agreed |", "| --- " * 6 + "|"]
    lines += [
        f"| {hour:%Y-%m-%d %H:00} | {each.answered:,} | {each.chosen:,} | {each.compared:,} | "
        f"{each.compared_share:.1%} | {_ratio(each.agreed, each.compared)} |"
        for hour, each in sorted(report.hours.items())
    ]
    lines += ["", "| task | compared | agreed |", "| --- | --- | --- |"]
    lines += [
        f"| {task} | {compared:,} | {_ratio(agreed, compared)} |" for task, (compared, agreed) in report.tasks.items()
    ]
    if report.changes:
        lines += ["", "| task | current | compared | requests |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {task} | {_cell(before)} | {_cell(after)} | {times:,} |"
            for (task, before, after), times in report.changes.most_common(20)
        ]
    left_out = {why: records for why, records in report.left_out.items() if records}
    if left_out:
        lines += ["", "Not compared: " + ", ".join(f"{records:,} {why}" for why, records in left_out.items()) + "."]
    return lines


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _cell(answer: str) -> str:
    return answer.replace("|", "\\|")
