"""What a person may answer to a task: the form of the answer and its labels."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ...runtime.model.kinds.forms import AnswerForm
from ...runtime.model.kinds.kind import Kind
from ...runtime.model.kinds.registry import KINDS, kind_of
from ...schemas.manifest import TaskSpec

REPLY_KIND: Final = "generation"


class EntryForm(StrEnum):
    """How a person enters an answer."""

    LABEL = "label"
    LABELS = "labels"
    SPANS = "spans"
    REPLY = "reply"


_FORMS: Final = {
    AnswerForm.LABEL: EntryForm.LABEL,
    AnswerForm.LABELS: EntryForm.LABELS,
    AnswerForm.SPANS: EntryForm.SPANS,
}


@dataclass(frozen=True)
class ReviewTask:
    """A task as people answer it. `labels` are those that may be chosen, in the model's order; `open`: new ones, too."""

    name: str
    form: EntryForm
    kind: Kind
    labels: tuple[str, ...] = ()
    open: bool = False
    accept: float | None = None
    """The score below which the model withholds its answer."""


def describe_task(spec: TaskSpec) -> ReviewTask | None:
    """Return how people answer a task; None for a kind whose answers they cannot enter here."""
    kind = kind_of(spec)
    if kind.generates:
        return ReviewTask(spec.name, EntryForm.REPLY, kind)
    form = _FORMS.get(kind.form)
    if form is None:
        return None
    known = kind.known_labels(spec)
    labels = sorted(known) if form is EntryForm.SPANS else [label for label in spec.labels if label in known]
    return ReviewTask(spec.name, form, kind, tuple(labels), spec.open, spec.thresholds.accept)


def describe_tasks(specs: Iterable[TaskSpec]) -> dict[str, ReviewTask]:
    """Return the tasks that people can answer, by name."""
    found = (describe_task(spec) for spec in specs)
    return {task.name: task for task in found if task is not None}


def reply_task(name: str) -> ReviewTask:
    """Return the task of replies that a policy words, which no model has."""
    return ReviewTask(name, EntryForm.REPLY, KINDS.get(REPLY_KIND))
