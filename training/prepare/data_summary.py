"""Counts the rows of a task, and says in notes what may be a mistake."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points

from ...runtime.agent.discovery import AGENTS
from ...runtime.generation.reply_vocabulary import ReplyVocabulary
from ..data.counts import ReadCounts
from ..data.example import Example
from ..data.rules import sources_of
from .data_checks import Texts, count_labels, find_overlaps, find_similar_names, list_names
from .data_report import CALIBRATION, TEST, THRESHOLDS, TRAIN, VALIDATION, Overlap, PartReport, TaskReport, TokenReport
from .selection import list_values
from .tasks import TaskData, group_of, label_by_distance, originals


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


def _notes_on_groups(data: TaskData, parts: Mapping[str, Sequence[Example]]) -> Iterator[str]:
    """Yield what a group that the recipe names says of parts that it does not divide."""
    column = data.task.group
    if column is None:
        return
    taught = {group_of(example, column) for example in parts[TRAIN]} - {None}
    for name, examples in parts.items():
        groups = [group_of(example, column) for example in examples]
        shared = sum(group in taught for group in groups)
        if shared and name != TRAIN:
            yield f"{shared:,} of {len(examples):,} rows of {name} have the same {column!r} as training rows"
        if missing := groups.count(None):
            yield f"{missing:,} of {len(examples):,} rows of {name} have no {column!r}: each counts as a group of its own"


def _notes_on_replies(data: TaskData, parts: Mapping[str, Sequence[Example]]) -> Iterator[str]:
    """Yield how many replies of a part have characters that no piece has, once pieces are made."""
    if not data.kind.generates or not data.labels:
        return
    vocabulary = ReplyVocabulary(data.labels)
    for name, examples in parts.items():
        found = [unknown for each in examples if (unknown := vocabulary.find_unknown(each.reply or "")) is not None]
        if found:
            yield (
                f"{len(found):,} of {len(examples):,} replies of {name} have a character that no training reply has, "
                f"{found[0]!r} say: the model cannot write it"
            )


def _notes_on_names(data: TaskData) -> Iterator[str]:
    """Yield names of the recipe that name nothing."""
    readings = [data.task, *sources_of(data.task)]
    named = [label for each in readings for labels in (each.merge or {}).values() for label in labels]
    named += [label for each in readings for label in each.one_of or ()]
    found = {label for counts in data.counts.values() for label in counts.labels}
    if unknown := [label for label in dict.fromkeys(named) if label not in found]:
        yield f"no row has {'the label' if len(unknown) == 1 else 'the labels'} {list_names(unknown)} of `merge` or `one_of`"
    if not data.task.default_for:
        return  # to look for installed agents takes as long as a step of a small model
    agents = {point.name for point in entry_points(group=AGENTS)}
    if unknown := [name for name in data.task.default_for if name not in agents]:
        yield f"`default_for` names {list_names(unknown)}; installed agents are {list_names(sorted(agents))}"


def _notes_on_values(data: TaskData) -> Iterator[str]:
    """Yield values of `where` and `unless` that no row has: of those of the task no row of any source that they select from."""
    unmatched = {each for counts in data.counts.values() for each in counts.unmatched}
    sources = [*sources_of(data.task)]
    for path, reading in [("", data.task), *((source.path, source) for source in sources)]:
        for key, column, value in dict.fromkeys(
            (key, column, str(value)) for key, column, value in list_values(reading)
        ):
            paths = [path] if path else [source.path for source in sources if getattr(source, key) is None]
            if paths and all((each, key, column, value) in unmatched for each in paths):
                yield f"{f'{path}: ' if path else ''}no row has {value!r} in {column!r}, which `{key}` names"


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
    if untaught := [
        label for label, count in counts.items() if not count and label not in label_by_distance(data.task)
    ]:
        yield f"no training row has {'the label' if len(untaught) == 1 else 'the labels'} {list_names(untaught)}"
    if contradictions := texts[TRAIN].contradictions:
        yield f"{contradictions:,} training texts stand there with different labels"
    if data.task.validation is None and data.validation and VALIDATION in texts:
        repeated = texts[VALIDATION].overlap(texts[TRAIN])
        if repeated.exact or repeated.near:
            yield "validation repeats training texts, because every label has one text alone: its figures mean nothing"
    soft = sum(example.soft is not None for example in data.train)
    if soft and (keys := [key for key in ("class_weights", "focal") if getattr(data.task, key) is not None]):
        yield f"`{'` and `'.join(keys)}` do not act on {soft:,} training rows marked `soft`, whose targets are answers"
    yield from _notes_on_groups(data, parts)
    yield from _notes_on_replies(data, parts)
    yield from _notes_on_names(data)
    yield from dict.fromkeys(_notes_on_values(data))
    scope, rule = data.task.out_of_scope, data.task.thresholds
    by_distance = scope is not None and scope.by == "distance"
    if (
        scope is not None
        and not by_distance
        and rule.accept is None
        and rule.out_of_scope is None
        and not data.choosing
    ):
        rows = data.outside if not scope.learn else [e for e in data.calibrating if scope.label in e.labels]
        if not rows:
            where = "no row to train or validate on" if not scope.learn else "no validation row"
            yield f"{where} has the out-of-scope label {scope.label!r}, so no threshold is chosen: name rows in `thresholds.data`"
