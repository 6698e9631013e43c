"""Counts the rows of a task, and says in notes what may be a mistake."""

from collections.abc import Iterator, Mapping, Sequence

from ..data.counts import ReadCounts
from ..data.example import Example
from .data_checks import Texts, count_labels, find_overlaps, find_similar_names, list_names
from .data_report import CALIBRATION, TEST, THRESHOLDS, TRAIN, VALIDATION, Overlap, PartReport, TaskReport, TokenReport
from .tasks import TaskData, originals


def parts_of(data: TaskData) -> dict[str, list[Example]]:
    """Return the rows of each part that has some; training rows without their copies.

    Out-of-scope rows without a class of their own are not trained on: they stand in `thresholds`.
    """
    parts = {
        TRAIN: originals(data.train),
        VALIDATION: data.validation,
        CALIBRATION: data.calibration,
        THRESHOLDS: [*data.outside, *data.choosing],
        TEST: data.test,
        **data.reports,
    }
    return {name: examples for name, examples in parts.items() if examples}


def summarise(data: TaskData, tokens: Mapping[str, TokenReport]) -> TaskReport:
    """Return the counts of a task. `tokens` is by part, and empty where no encoder could be opened."""
    parts = parts_of(data)
    texts = {name: Texts(examples) for name, examples in parts.items()}
    return TaskReport(
        kind=data.task.kind,
        parts={
            name: PartReport(
                rows=len(examples),
                left_out=_left_out(data, name),
                trimmed=data.counts.get(name, ReadCounts()).trimmed,
                labels=count_labels(examples, data.names),
                duplicates=texts[name].duplicates,
                tokens=tokens.get(name),
            )
            for name, examples in parts.items()
        },
        overlap=_overlaps(texts),
        notes=list(_notes(data, parts, texts, tokens)),
    )


def _overlaps(texts: Mapping[str, Texts]) -> dict[str, dict[str, Overlap]]:
    """Return what the parts have in common. That calibration repeats validation rows is no mistake."""
    found = find_overlaps(texts, (TRAIN, VALIDATION))
    shared = {other: each for other, each in found.pop(CALIBRATION, {}).items() if other != VALIDATION}
    return found | ({CALIBRATION: shared} if shared else {})


def _left_out(data: TaskData, part: str) -> dict[str, int]:
    counts = data.counts.get(part, ReadCounts())
    rows = {f"rows {why.value}": count for why, count in counts.rows_left_out.items()}
    return rows | {f"spans {why.value}": count for why, count in counts.spans_left_out.items()}


def _notes(
    data: TaskData,
    parts: Mapping[str, Sequence[Example]],
    texts: Mapping[str, Texts],
    tokens: Mapping[str, TokenReport],
) -> Iterator[str]:
    if TRAIN in tokens and tokens[TRAIN].unknown is None:
        yield "the encoder's tokenizer has no unknown token: texts of a language that it does not know go unnoticed"
    for group in find_similar_names(data.names):
        yield f"labels {' and '.join(repr(label) for label in group)} have nearly the same name"
    counts = count_labels(parts[TRAIN], data.names)
    if untaught := [label for label, count in counts.items() if not count]:
        yield f"no training row has {'the label' if len(untaught) == 1 else 'the labels'} {list_names(untaught)}"
    if contradictions := texts[TRAIN].contradictions:
        yield f"{contradictions:,} training texts stand there with different labels"
    if data.task.validation is None and data.validation and VALIDATION in texts:
        repeated = texts[VALIDATION].overlap(texts[TRAIN])
        if repeated.exact or repeated.near:
            yield "validation repeats training texts, because every label has one text alone: its figures mean nothing"
    scope, rule = data.task.out_of_scope, data.task.thresholds
    if scope is not None and rule.accept is None and rule.out_of_scope is None and not data.choosing:
        rows = data.outside if not scope.learn else [e for e in data.calibrating if scope.label in e.labels]
        if not rows:
            where = "no row to train or validate on" if not scope.learn else "no validation row"
            yield f"{where} has the out-of-scope label {scope.label!r}, so no threshold is chosen: name rows in `thresholds.data`"
