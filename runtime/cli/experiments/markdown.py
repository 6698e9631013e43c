"""Writes the report of an experiment as Markdown. Pure."""

import math
from collections.abc import Iterable, Iterator, Sequence

from ...experiments.report import Report, Row
from ...release.experiment_events import describe_unit, format_share


def write_report(report: Report) -> str:
    """Return the report of an experiment."""
    return "\n".join(_lines(report)) + "\n"


def measure_cells(rows: Iterable[Row]) -> list[list[str]]:
    """Return a line of cells for each measure: key, role, current, candidate, difference, interval, margin, verdict, units."""
    return [
        [
            row.key,
            row.role,
            _ratio(row.control),
            _ratio(row.candidate),
            _signed(row.difference),
            "-" if math.isnan(row.low) else f"[{row.low:+.4f}, {row.high:+.4f}]",
            "" if row.margin is None else f"{row.margin:g}",
            row.verdict,
            f"{row.units[0]:,} / {row.units[1]:,}",
        ]
        for row in rows
    ]


MEASURE_COLUMNS = ["measure", "role", "current", "candidate", "difference", "interval", "margin", "verdict", "units"]


def summary_rows(report: Report) -> list[list[str]]:
    """Return name and value of what stands above the measures."""
    experiment, (control, candidate) = report.experiment, report.units
    raises = "".join(f", {format_share(step.share)} since {step.at:%Y-%m-%d %H:%MZ}" for step in experiment.raises)
    rows = [
        ["versions", f"{report.current} current, {report.candidate} candidate"],
        ["share", f"{format_share(experiment.share)} of the {describe_unit(experiment)}{raises}"],
        ["since", f"{experiment.started:%Y-%m-%d %H:%M:%SZ}"],
        ["promoted", f"{experiment.promoted:%Y-%m-%d %H:%M:%SZ}" if experiment.promoted else "no"],
        ["as of", f"{report.looked:%Y-%m-%d %H:%MZ}, {report.hours:.1f} hours of records"],
        ["units", f"{control:,} current, {candidate:,} candidate, {report.open_units:,} open, {report.moved:,} moved"],
        ["mismatch", f"p = {report.mismatch:.2g}{', nothing is concluded' if report.is_uneven else ''}"],
    ]
    if report.sampled < 1.0:
        rows.append(["sampled", f"{format_share(report.sampled)} of the units count: more were open than `max_units`"])
    if len(report.pass_ratios) == 2:
        candidate_ratio, control_ratio = report.pass_ratios
        rows.append(
            ["passes", f"p95 of time / calibrated: {control_ratio:.2f} current, {candidate_ratio:.2f} candidate"]
        )
    rows.append(["decision", f"{report.action}: {report.why}"])
    if report.ended is not None:
        rows.append(["ended", f"{report.ended.by}, {report.ended.at:%Y-%m-%d %H:%M:%SZ}"])
    return rows


def _lines(report: Report) -> Iterator[str]:
    yield f"# Experiment {report.experiment.id}"
    yield ""
    yield f"Model {report.model}: version {report.candidate} beside version {report.current}."
    yield ""
    yield from _table(["", ""], summary_rows(report))
    yield "## Measures"
    yield ""
    yield (
        "`difference` is candidate minus current. Intervals hold at every look: those of the goals all together with "
        f"probability {1.0 - report.experiment.rules.alpha:g}, and so do those of the guardrails; `units` are those with a "
        "value, current / candidate."
    )
    yield ""
    yield from _table(MEASURE_COLUMNS, measure_cells(report.rows))
    if report.by_task:
        yield "## By task"
        yield ""
        yield "Shown, not judged: each interval is that of a measure alone."
        yield ""
        yield from _table(MEASURE_COLUMNS, measure_cells(report.by_task))
    names = {"control": "current", "fallback": "current in place of the candidate"}
    yield from _counts("Who answered", {names.get(who, who): number for who, number in report.answers.items()})
    yield from _counts("Records in no sum", report.skipped)
    if report.decided:
        yield "## Decisions"
        yield ""
        rows = [[f"{each.at:%Y-%m-%d %H:%MZ}", each.action, each.why] for each in report.decided]
        yield from _table(["at", "action", "why"], rows)


def _counts(title: str, counts: dict[str, int]) -> Iterator[str]:
    if counts:
        yield f"## {title}"
        yield ""
        yield from _table(["", "records"], [[name, f"{number:,}"] for name, number in sorted(counts.items())])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(_escape(cell) for cell in row)} |"
    yield ""


def _escape(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.4f}"
