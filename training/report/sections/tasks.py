"""What each task scored on each set: figures with intervals, labels, confusions, calibration, coverage, slices, mistakes."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

from ....schemas.manifest import ModelManifest, TaskSpec
from ...kinds.answers import Score
from ...kinds.figures.findings import Findings, Slice
from ...kinds.figures.span_scores import Matches
from ...kinds.registry import kind_of
from ...prepare.data_report import TaskReport
from ..decisions import describe_decisions
from ..figures import meanings_of, rounded, shown
from ..page_data import PageData
from ..plots import Plot, draw_coverage, draw_reliability
from ..section import Section, render

DRAWN_SETS: Final = 6
"""Sets of a model that get drawings; a drawing takes a tenth of a second."""
OPEN_LABELS: Final = 12
"""Tables of more labels are closed at first."""
_PROBED: Final = ("accuracy", "micro_f1", "macro_f1", "f1")
"""Figures of which the probe has the same."""


class _Figure(NamedTuple):
    name: str
    meaning: str
    value: str
    interval: str
    probe: str


class _Label(NamedTuple):
    name: str
    precision: str
    recall: str
    f1: str
    bar: float
    rows: int


class _Set(NamedTuple):
    name: str
    figures: list[_Figure]
    has_probe: bool
    labels: list[_Label]
    plots: list[Plot]
    found: Findings


class _Task(NamedTuple):
    name: str
    kind: str
    labels: int
    decisions: str
    sets: list[_Set]
    metric: str


def make_tasks(page: PageData) -> Section | None:
    if not any(page.scores.values()):
        return None
    drawn = iter(range(DRAWN_SETS))
    tasks = [_make_task(page, name, drawn) for name, by_set in page.scores.items() if by_set]
    left = sum(len(task.sets) for task in tasks) - DRAWN_SETS
    body = render(
        "tasks.html",
        tasks=tasks,
        with_texts=page.with_texts,
        open_labels=OPEN_LABELS,
        undrawn=max(0, left),
        most=DRAWN_SETS,
    )
    return Section("tasks", "Scores", body, tuple((f"task-{task.name}", task.name) for task in tasks))


def _make_task(page: PageData, name: str, drawn: Iterator[int]) -> _Task:
    spec = page.manifest.task(name)
    sets = [_make_set(page, spec, set_name, score, drawn) for set_name, score in page.scores[name].items()]
    metric = kind_of(spec).gain_unit or "share that is right"
    return _Task(name, spec.kind, len(kind_of(spec).name_labels(spec.labels)), describe_decisions(spec), sets, metric)


def _make_set(page: PageData, spec: TaskSpec, name: str, score: Score, drawn: Iterator[int]) -> _Set:
    found = score.findings or Findings()
    slices = [each for each in found.slices if page.with_texts or not each.from_rows]
    figures = [*_make_figures(page.manifest, spec, name, score)]
    return _Set(
        name,
        figures,
        any(each.probe for each in figures),
        _make_labels(found),
        [*_draw(page, f"{spec.name}-{name}", found)] if next(drawn, None) is not None else [],
        replace(found, slices=_more_than_one(slices)),
    )


def _make_figures(manifest: ModelManifest, spec: TaskSpec, name: str, score: Score) -> Iterator[_Figure]:
    meanings, probe = meanings_of(kind_of(spec)), {}
    if any(f"probe_{figure}" in score.figures for figure in _PROBED) and spec.name in manifest.data:
        report = TaskReport.model_validate(manifest.data[spec.name]).probe
        probe = dict(report.scores[name]) if report is not None and name in report.scores else {}
    for figure, value in rounded(score.figures).items():
        interval = score.interval(figure)
        said = (
            f"{round(interval.low, 4):g} – {round(interval.high, 4):g}"
            if interval is not None and value is not None
            else ""
        )
        probed = probe.get(figure) if figure in _PROBED else None
        beside = f"{probed:.4g}" if probed is not None else ""
        yield _Figure(figure, meanings.get(figure, ""), shown(value), said, beside)


def _make_labels(found: Findings) -> list[_Label]:
    """Return the labels, the worst first."""
    worst = sorted(found.labels.items(), key=lambda item: (item[1].f1 or 0.0, item[0]))
    return [_make_label(name, counts) for name, counts in worst]


def _make_label(name: str, counts: Matches) -> _Label:
    precision, recall, f1 = (
        "–" if each is None else f"{each:.3f}" for each in (counts.precision, counts.recall, counts.f1)
    )
    return _Label(name, precision, recall, f1, counts.f1 or 0.0, counts.right + counts.missed)


def _draw(page: PageData, name: str, found: Findings) -> Iterator[Plot]:
    anchor = "".join(each if each.isalnum() and each.isascii() else "-" for each in name)
    if found.bins:
        name = f"reliability-{anchor}"
        yield page.draw(name, partial(draw_reliability, name, found.bins))
    if found.coverage is not None and len(found.coverage.points) > 1:
        name = f"coverage-{anchor}"
        yield page.draw(name, partial(draw_coverage, name, found.coverage))


def _more_than_one(slices: list[Slice]) -> list[Slice]:
    """Leave out columns of which one value alone has enough rows."""
    columns = [each.column for each in slices]
    return [each for each in slices if columns.count(each.column) > 1]
