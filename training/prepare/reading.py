"""Reads the sources of one part of a task as examples."""

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...runtime.errors import SetupError
from ..data.counts import ReadCounts, RowLeftOut
from ..data.example import Example
from ..data.fields import read_second
from ..data.files import find_source, read_rows, refuse_unused_keys
from ..data.row import Row, is_unfilled, list_names
from ..data.rules import Rules, find_named_labels, make_rules
from ..data.tagging import refuse_mixed_schemes
from ..data.typos import typo_copies
from ..kinds.kind import Kind
from ..kinds.registry import KINDS
from ..recipe.keys.reading import Source
from ..recipe.keys.tasks import Task
from .selection import UnmatchedValues, is_selected


def read_part(
    sources: Iterable[Source],
    task: Task,
    folder: Path,
    *,
    seed: int,
    training: bool = False,
    confirmed: bool = False,
) -> list[Example]:
    """Read all sources of one part of a task in their order. `training` applies `repeat` and `typo_copies`.

    `confirmed`: people gave these labels in feedback, so that a label `none` is meant.
    """
    return read_counted(sources, task, folder, seed=seed, training=training, confirmed=confirmed)[0]


def read_counted(
    sources: Iterable[Source],
    task: Task,
    folder: Path,
    *,
    seed: int,
    training: bool = False,
    confirmed: bool = False,
) -> tuple[list[Example], ReadCounts]:
    """Read as `read_part` does, and count what the files have and what was left out."""
    examples: list[Example] = []
    counts = ReadCounts()
    sources = list(sources)
    named = None if confirmed else find_named_labels(task, sources)
    kind = KINDS.get(task.kind)
    for source in sources:
        rules = make_rules(source, task, named, several=kind.several)
        if not task.is_past:
            refuse_unused_keys(find_source(folder, source.path), source, rules.reading)
        found, counted = _read_source(source, rules, kind, folder, seed)
        counts += counted
        if training:
            slips = random.Random(seed)
            copies = [] if kind.per_token else typo_copies(found, source.typo_copies, slips)
            found = found * source.repeat + copies
            if source.soft:
                found = [replace(example, soft=source.soft) for example in found]
        examples.extend(found)
    return examples, counts


def _read_source(source: Source, rules: Rules, kind: Kind, folder: Path, seed: int) -> tuple[list[Example], ReadCounts]:
    path = find_source(folder, source.path)
    counts = ReadCounts()
    examples = []
    unmatched = UnmatchedValues(rules.reading)
    for row in read_rows(path, rules.reading):
        counts.rows += 1
        unmatched.see(row)
        found = row.left_out or _read_selected(row, rules, kind, counts)
        if isinstance(found, RowLeftOut):
            counts.rows_left_out[found] += 1
        else:
            examples.append(found)
    counts.labels = rules.findings.labels
    counts.unmatched = unmatched.of(source.path)
    refuse_mixed_schemes(rules)
    if not examples:
        raise SetupError(f"{path}: no rows{_explain_none(counts)}")
    if source.rows is not None and len(examples) > source.rows:
        counts.rows_left_out[RowLeftOut.CAP] += len(examples) - source.rows
        # Drawn, not cut: files are often sorted by label.
        random.Random(seed).shuffle(examples)
        examples = examples[: source.rows]
    return examples, counts


def _explain_none(counts: ReadCounts) -> str:
    if set(counts.rows_left_out) == {RowLeftOut.NOT_SELECTED}:
        missing = [f"{value!r} in {column!r}" for _, key, column, value in sorted(counts.unmatched) if key == "where"]
        return f" left after where/unless{f'; no row has {list_names(missing)}' if missing else ''}"
    if {RowLeftOut.NOT_ANNOTATED, RowLeftOut.REPEATED, RowLeftOut.NO_REPLY, RowLeftOut.NO_CONTEXT} & set(
        counts.rows_left_out
    ):
        return f": {counts.describe_left_out()}"
    return " left after one_of, merge and rest" if counts.rows else ""


def _read_selected(row: Row, rules: Rules, kind: Kind, counts: ReadCounts) -> Example | RowLeftOut:
    if not is_selected(row, rules.reading):
        return RowLeftOut.NOT_SELECTED
    if is_unfilled(row, rules.columns.spans if kind.per_token else rules.columns.label) and rules.label is None:
        return RowLeftOut.NOT_ANNOTATED
    found = kind.read(row, rules, counts)
    if not kind.per_pair or kind.generates or isinstance(found, RowLeftOut):
        return found
    meta = {name: value for name, value in found.meta.items() if name != rules.columns.text_pair}
    return replace(found, second=read_second(row, rules), meta=meta)
