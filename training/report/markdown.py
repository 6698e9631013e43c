"""`report.md`: the figures of all sets as Markdown."""

from collections.abc import Iterator, Mapping, Sequence

from ...schemas.manifest import ModelManifest
from ..kinds.answers import Score
from ..kinds.registry import kind_of
from ..prepare.data_report import TaskReport, data_table
from ..run_folders.smaller import Compared
from .decisions import describe_decisions
from .figures import meanings_of, rounded, shown
from .layers import read_layer_shares, table_rows
from .part import Part, as_markdown

Scores = Mapping[str, Mapping[str, Score]]
"""Task, then set."""


def markdown(
    manifest: ModelManifest,
    scores: Scores,
    description: str = "",
    smaller: Compared | None = None,
    parts: Sequence[Part] = (),
) -> str:
    """Return the readable report: the recipe's description, how a smaller model compares with its teacher, a line of figures for
    each set, thresholds, then the table of all labels; at the end what is said of the training.
    """
    lines = [f"# {manifest.name}, version {manifest.version}", ""]
    lines += [description.strip(), ""] if description.strip() else []
    lines += ["Measured on the exported folder through the code that serves it.", ""]
    lines += [*_table(smaller), ""] if smaller is not None else []
    cross_validated = [name for name, found in manifest.data.items() if found.get("cross_validated")]
    for task in dict.fromkeys((*scores, *cross_validated)):
        by_set = scores.get(task, {})
        spec = manifest.task(task)
        meanings = meanings_of(kind_of(spec))
        lines += [f"## {task} ({spec.kind}, {len(spec.labels)} labels)", "", describe_decisions(spec), ""]
        lines += describe_data(task, manifest)
        for name, score in by_set.items():
            lines += [f"### {task}: {name}", "", "| figure | value | |", "| --- | --- | --- |"]
            values = rounded(score.figures).items()
            lines += [f"| {figure} | {shown(value)} | {meanings.get(figure, '')} |" for figure, value in values]
            lines += ["", "```", score.table.rstrip(), "```", ""]
    for part in parts:
        lines += as_markdown(part)
    return "\n".join([*lines, *describe_layers(manifest)])


def _table(found: Compared) -> Iterator[str]:
    yield f"{found.describe()} ({found.texts} texts in batches of 32, ONNX Runtime on one thread)."
    yield from ("", "| task | set | rows | teacher | here |", "| --- | --- | --- | --- | --- |")
    for each in found.tasks:
        yield f"| {each.task} | {each.set} | {each.rows} | {each.teacher:.4f} | {each.student:.4f} |"


def describe_data(task: str, manifest: ModelManifest) -> list[str]:
    """Return what training read for the task, as far as the manifest says so."""
    if task not in manifest.data:
        return []
    return [f"### {task}: data", "", *data_table(TaskReport.model_validate(manifest.data[task])), ""]


def describe_layers(manifest: ModelManifest) -> list[str]:
    """Return which share the heads that mix layers give to each."""
    found = read_layer_shares(manifest)
    if found is None:
        return []
    lines = ["## Which task reads which layer", "", "The learned share of each layer in what a head reads.", ""]
    lines += [f"| task | {' | '.join(found.columns)} |", f"|{' --- |' * (len(found.columns) + 1)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in table_rows(found)), ""]
