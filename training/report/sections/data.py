"""What was read: rows, labels, what was left out and cut, and what the parts have in common."""

from typing import NamedTuple

from ...prepare.data_report import TRAIN, TaskReport, describe_facts, describe_probe
from ..page_data import PageData
from ..section import Section, render


class _Part(NamedTuple):
    name: str
    rows: int
    left_out: int
    duplicates: int
    empty: str
    cut: str
    unknown: str


class _Label(NamedTuple):
    name: str
    rows: int
    share_of_most: float


class _Task(NamedTuple):
    name: str
    kind: str
    parts: list[_Part]
    labels: list[_Label]
    facts: list[str]
    notes: list[str]


def make_data(page: PageData) -> Section | None:
    tasks = [_make_task(name, report) for name, report in page.data.items()]
    if not tasks:
        return None
    return Section("data", "What was read", render("data.html", tasks=tasks, limit=page.manifest.limits.max_tokens))


def _make_task(name: str, report: TaskReport) -> _Task:
    counts = report.parts[TRAIN].labels if TRAIN in report.parts else {}
    most = max([*counts.values(), 1])
    by_rows = sorted(counts.items(), key=lambda item: -item[1])
    facts = describe_facts(report)
    if report.probe is not None:
        facts.append(describe_probe(report.probe))
    return _Task(
        name,
        report.kind,
        [*_make_parts(report)],
        [_Label(label, rows, rows / most) for label, rows in by_rows],
        facts,
        [*report.notes],
    )


def _make_parts(report: TaskReport) -> list[_Part]:
    made = []
    for name, part in report.parts.items():
        tokens = part.tokens
        unknown = "–" if tokens is None or tokens.unknown is None else f"{100 * tokens.unknown:.2f} %"
        empty, cut = ("–", "–") if tokens is None else (f"{tokens.empty:,}", f"{tokens.cut:,}")
        made.append(_Part(name, part.rows, sum(part.left_out.values()), part.duplicates, empty, cut, unknown))
    return made
