"""Writes the report of an experiment as Markdown. Pure."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ...experiments.assignment import Side
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


SCORE_COLUMNS = ["task", "version", "answers", "10 % below", "50 % below", "90 % below", "from 0 to 1"]
LATENCY_COLUMNS = ["version", "results", "50 % within", "95 % within", "99 % within"]
DISAGREEMENTS_NOTE = (
    "Where both versions would answer the same request otherwise no experiment can see, since each is answered by one: "
    "`murmura models shadow` asks people about such answers, and so does `murmura replay --reviews` of records of the past."
)
_BLOCKS = "▁▂▃▄▅▆▇█"


class Table(NamedTuple):
    """A table of the report, with what is to be known of it."""

    title: str
    note: str
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]


def list_tables(report: Report) -> list[Table]:
    """Return what was measured, as tables; those without a row are left out but the first."""
    measures = (
        "The difference is candidate minus current. Intervals hold at every look: those of the goals all together with "
        f"probability {1.0 - report.experiment.rules.alpha:g}, and so do those of the guardrails; units are those with a "
        "value, current / candidate."
    )
    tables = [
        Table("Measures", measures, MEASURE_COLUMNS, measure_cells(report.rows)),
        Table(
            "By task",
            "Shown, not judged: each interval is that of a measure alone.",
            MEASURE_COLUMNS,
            measure_cells(report.by_task),
        ),
        Table(
            "Scores",
            "Shown, not judged: the score of each answer's best label, also of withheld ones, by who answered. "
            "The bars are twentieths of the scores.",
            SCORE_COLUMNS,
            score_cells(report),
        ),
        Table(
            "Latency",
            "Shown, not judged: from request to result, to within 19 %. The smaller queue is held on purpose.",
            LATENCY_COLUMNS,
            latency_cells(report),
        ),
    ]
    return [table for number, table in enumerate(tables) if table.cells or not number]


def score_cells(report: Report) -> list[list[str]]:
    """Return a line of cells for each task and version: answers, quantiles of the score, and a bar for each 0.05 of it."""
    return [
        [
            row.task,
            _name_side(row.side),
            f"{row.answers:,}",
            *(f"{each:.2f}" for each in row.quantiles),
            "".join(_BLOCKS[round(height * (len(_BLOCKS) - 1))] for height in row.heights),
        ]
        for row in report.scores
    ]


def latency_cells(report: Report) -> list[list[str]]:
    """Return a line of cells for each version: results, and quantiles of the latency."""
    return [
        [_name_side(row.side), f"{row.results:,}", *(f"{each:,.0f} ms" for each in row.quantiles)]
        for row in report.latency
    ]


def _name_side(side: Side) -> str:
    return "current" if side == "control" else "candidate"


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
    for table in list_tables(report):
        yield f"## {table.title}"
        yield ""
        yield table.note
        yield ""
        yield from _table(table.columns, table.cells)
    names = {"control": "current", "fallback": "current in place of the candidate"}
    yield from _counts("Who answered", {names.get(who, who): number for who, number in report.answers.items()})
    yield from _counts("Records in no sum", report.skipped)
    yield "## Disagreements"
    yield ""
    yield DISAGREEMENTS_NOTE
    yield ""
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
