"""Looks for label errors in the training rows of each task, on the frozen encoder's states."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ....runtime.model.kinds.forms import AnswerForm
from ...compute.failures import memory_of
from ...data.example import Example
from ...data.near_texts import near_form, near_id
from ...prepare.tasks import TaskData, originals
from ...run_folders.label_errors import LabelError, LabelErrors, write_label_errors
from ..probe.frozen import Frozen
from ..setup import Fitting
from .find import MISSING, Doubts, Found, find_in_flags, find_in_labels, find_in_tags, is_installed

Array = NDArray[Any]
MOST_ROWS: Final = 10_000
"""Rows of a task that are checked at most, drawn at random."""
MOST_TAGGED_ROWS: Final = 2_000
MOST: Final = 50
"""Errors of a task that are listed: people's time is the budget."""
_FEWEST: Final = 20
_NONE: Final = "(none)"
_MOST_NAMED: Final = 10


def find_label_errors(run: Fitting, folder: Path, *, texts: bool = True) -> list[str]:
    """Write what was found into the run's folder where the recipe asks for it, with texts of rows where both allow them; return one
    line for each task, or why not.
    """
    if not run.recipe.report.label_errors or not run.accelerator.is_main_process:
        return []
    if not is_installed():
        return [MISSING]
    found = check_labels(run)
    if not (texts and run.recipe.report.texts):
        found = {name: _without_texts(each) for name, each in found.items()}
    write_label_errors(folder, found)
    return describe_label_errors(found)


@memory_of("label errors", "lower max_tokens, or leave `report.label_errors` out")
def check_labels(run: Fitting) -> dict[str, LabelErrors]:
    """Return what was found, by task. Tasks of other kinds and of fewer than 20 rows have a reason instead."""
    frozen: Frozen | None = None
    found: dict[str, LabelErrors] = {}
    for at, data in enumerate(run.tasks):
        rows = [row for row in originals(data.train) if not row.soft]
        if reason := _reason_against(data, rows):
            found[data.name] = LabelErrors(reason=reason)
            continue
        frozen = frozen or Frozen.of_run(run)
        found[data.name] = _check_task(frozen, at, data, _draw(data, rows, run.recipe.data_seed))
    return found


def describe_label_errors(found: dict[str, LabelErrors]) -> list[str]:
    """Return one line for each task."""
    return [
        f"{name}: label errors: {each.reason or f'{each.found:,} likely in {each.rows:,} training rows'}{_describe_unjudged(each)}"
        for name, each in found.items()
    ]


def _describe_unjudged(found: LabelErrors) -> str:
    named = ", ".join(found.unjudged[:_MOST_NAMED]) + (", ..." if len(found.unjudged) > _MOST_NAMED else "")
    return f"; not judged, as too few different texts have them: {named}" if named else ""


def _without_texts(found: LabelErrors) -> LabelErrors:
    return found.model_copy(update={"errors": [each.model_copy(update={"text": ""}) for each in found.errors]})


def _reason_against(data: TaskData, rows: Sequence[Example]) -> str:
    if data.kind.generates or data.kind.serving.form is AnswerForm.OTHER or data.kind.per_pair:
        return "not looked for in tasks of this kind"
    return f"fewer than {_FEWEST} training rows" if len(rows) < _FEWEST else ""


def _draw(data: TaskData, rows: Sequence[Example], seed: int) -> list[Example]:
    most = MOST_TAGGED_ROWS if data.kind.per_token else MOST_ROWS
    if len(rows) <= most:
        return [*rows]
    drawn = np.random.default_rng(seed).choice(len(rows), most, replace=False)
    return [rows[at] for at in np.sort(drawn)]


def _check_task(frozen: Frozen, task: int, data: TaskData, rows: Sequence[Example]) -> LabelErrors:
    states, part = frozen.embed_part(task, data, rows)
    groups, seed = [near_form(row.given) for row in rows], frozen.run.recipe.data_seed
    if data.kind.per_token:
        words = [np.flatnonzero(target[: len(ids)] >= 0) for ids, target in zip(part.ids, part.targets, strict=True)]
        tags = [target[at] for target, at in zip(part.targets, words, strict=True)]
        kept = [row for row, at in enumerate(words) if len(at)]
        doubts = find_in_tags(
            [states[row][words[row]] for row in kept], [tags[row] for row in kept], [groups[row] for row in kept], seed
        )
        found = [each._replace(row=kept[each.row]) for each in doubts.found]
        errors = [_tag_error(each, rows, tags, data.labels) for each in found[:MOST]]
        return _result(doubts, len({each.row for each in found}), errors, data.labels)
    features, targets = np.stack(states), np.stack(part.targets)
    if data.kind.serving.form is AnswerForm.LABELS:
        doubts = find_in_flags(features, targets, groups, seed)
        errors = [_flags_error(each, rows, targets, data.labels) for each in doubts.found[:MOST]]
    else:
        doubts = find_in_labels(features, targets.tolist(), groups, seed)
        errors = [_label_error(each, rows, targets, data.labels) for each in doubts.found[:MOST]]
    return _result(doubts, len(doubts.found), errors, data.labels)


def _result(doubts: Doubts, rows: int, errors: list[LabelError], labels: Sequence[str]) -> LabelErrors:
    unjudged = [labels[number] for number in doubts.unjudged]
    return LabelErrors(rows=doubts.rows, found=rows, errors=errors, unjudged=unjudged)


def _id(row: Example) -> str:
    return near_id(near_form(row.given)).hex()


def _label_error(found: Found, rows: Sequence[Example], targets: Array, labels: Sequence[str]) -> LabelError:
    row, given, best = rows[found.row], int(targets[found.row]), int(found.scores.argmax())
    return LabelError(
        place=row.place,
        id=_id(row),
        text=row.text,
        given=labels[given],
        answered=labels[best],
        score=float(found.scores[given]),
        answered_score=float(found.scores[best]),
    )


def _flags_error(found: Found, rows: Sequence[Example], targets: Array, labels: Sequence[str]) -> LabelError:
    row, given = rows[found.row], targets[found.row] > 0.5
    agreement = np.where(given, found.scores, 1 - found.scores)
    return LabelError(
        place=row.place,
        id=_id(row),
        text=row.text,
        given=_join(labels, given),
        answered=_join(labels, found.scores >= 0.5),
        score=float(agreement.min()),
    )


def _join(labels: Sequence[str], flags: Array) -> str:
    return ", ".join(label for label, flag in zip(labels, flags, strict=True) if flag) or _NONE


def _tag_error(found: Found, rows: Sequence[Example], tags: Sequence[Array], labels: Sequence[str]) -> LabelError:
    row, given, best = rows[found.row], int(tags[found.row][found.token]), int(found.scores.argmax())
    return LabelError(
        place=row.place,
        id=_id(row),
        text=row.text,
        given=labels[given],
        answered=labels[best],
        score=float(found.scores[given]),
        where=f"word {found.token + 1}",
    )
