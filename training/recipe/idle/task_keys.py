"""Keys about the rows of tasks that have no effect: how tasks go together, how labels are learned, and what heads begin from. Pure."""

from collections.abc import Iterator
from typing import Final

from ....runtime.model.kinds.forms import AnswerForm, Reads
from ....runtime.model.kinds.registry import KINDS
from ..keys.tasks import Task
from ..keys.teachers import Teachers
from ..recipe import Recipe
from .settings import Problem, is_set, is_whole

BETWEEN_TASKS: Final = ("normalise", "sampling")
"""Keys that say how the tasks of a recipe go together, beside `weights`."""
OF_A_TASK_AMONG_OTHERS: Final = ("loss_weight", "sampling_weight")
_OF_LABELS: Final = ("class_weights", "focal", "label_smoothing")
"""Keys that say how the label of a row is learned."""


def find_in_tasks(recipe: Recipe) -> Iterator[Problem]:
    """Yield place and message of each such key."""
    for find in (_find_between_tasks, _find_of_labels, _find_smoothing, _find_few_rows):
        yield from find(recipe)


def _find_between_tasks(recipe: Recipe) -> Iterator[Problem]:
    """Yield what says how tasks go together in a recipe that was written for one."""
    if recipe.count_written() > 1:
        return
    why = "has no effect with one task: it says how several go together"
    for key in BETWEEN_TASKS:
        if is_set(recipe, key):
            yield (key,), why
    for name, task in recipe.tasks.items():
        for key in OF_A_TASK_AMONG_OTHERS:
            if is_set(task, key):
                yield ("tasks", name, key), f"{why}; the learning rates say how much it learns"


def _find_of_labels(recipe: Recipe) -> Iterator[Problem]:
    """Yield what says how labels are learned where none is, and the weight of a label that no row teaches."""
    for name, task in recipe.tasks.items():
        for key in _OF_LABELS if _reads_no_label(recipe, name) else ():
            if getattr(task, key):
                yield (
                    ("tasks", name, key),
                    "has no effect beside `gold: 0`: the task learns answers alone, and no label",
                )
        scope, weights = task.out_of_scope, task.class_weights
        outside = scope.label if scope is not None and scope.by == "distance" else None
        if outside is not None and isinstance(weights, dict) and weights.get(outside, 1.0) != 1:
            problem = f"has no effect: {outside} is out of scope by distance, and no row of it is learned"
            yield ("tasks", name, "class_weights", outside), problem


def _find_smoothing(recipe: Recipe) -> Iterator[Problem]:
    """Yield the `label_smoothing` of the recipe where no task takes it."""
    if not recipe.label_smoothing or not is_whole(recipe):
        return
    without = [name for name, task in recipe.tasks.items() if task.label_smoothing is None]
    if not without:
        yield ("label_smoothing",), "has no effect: every task has its own"
    elif all(_reads_no_label(recipe, name) for name in without):
        problem = f"has no effect beside `gold: 0`: {', '.join(without)} learn{'s' if len(without) == 1 else ''} answers alone"
        yield ("label_smoothing",), f"{problem}, and no label"


def _reads_no_label(recipe: Recipe, name: str) -> bool:
    """Return whether a teacher's answers are all that a task learns. Self-training learns from labels, too."""
    teachers = _teachers_of(recipe)
    if teachers is None or teachers.gold != (0.0, 0.0) or recipe.self_training is not None:
        return False
    return teachers.teaches(name) and not KINDS.get(recipe.tasks[name].kind).generates


def _teachers_of(recipe: Recipe) -> Teachers | None:
    return recipe.teachers or (recipe.smaller.as_teachers() if recipe.smaller is not None else None)


def _find_few_rows(recipe: Recipe) -> Iterator[Problem]:
    if not is_set(recipe, "few_rows") or not recipe.few_rows:
        return
    if not recipe.probe:
        yield ("few_rows",), "has no effect beside `probe: false`: no head begins from the probe"
    elif recipe.encoder.source == "scratch":
        yield ("few_rows",), "has no effect with an encoder from scratch: there is no probe for heads to begin from"
    elif is_whole(recipe) and all(_begins_without_probe(recipe, *each) for each in recipe.tasks.items()):
        problem = "has no effect: only the linear head of a classification without a teacher begins from the probe"
        yield ("few_rows",), problem


def _begins_without_probe(recipe: Recipe, name: str, task: Task) -> bool:
    """Return whether no logistic regression is the head's beginning, however many rows the task has."""
    kind, form = KINDS.get(task.kind), task.form_of_head
    if kind.generates or kind.reads is Reads.TOKENS or kind.form is AnswerForm.LABELS:
        return True
    if form is not None and not form.distance:
        return True
    teachers = _teachers_of(recipe)
    return teachers is not None and teachers.teaches(name)
