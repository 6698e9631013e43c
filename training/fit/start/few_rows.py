"""What is different for a classification with few rows: which tasks have few, and the rows that the labels' names make."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Final

from ...data.example import Example
from ...kinds.multi_label import MultiLabel
from ...kinds.tagging import Tagging
from ...model.encoders import Checkpoint
from ...prepare.data_report import TaskReport
from ...prepare.label_names import name_rows
from ...prepare.tasks import TaskData, originals
from ...recipe.idle.settings import is_set
from ...recipe.keys.optimiser import Optimiser
from ...recipe.keys.self_training import SELF_TRAINING
from ...recipe.last_phase import find_task
from ...recipe.phase_recipe import leaves_encoder, list_untaught, never_trains_encoder
from ...recipe.recipe import Recipe

ENCODER_LR: Final = 5e-5
"""For the encoder where every head begins from logistic regression on it: what it knows is worth more than few rows."""
_OF_LOSS: Final = ("focal", "label_smoothing")
"""Keys of a task that change its loss, which no logistic regression has."""
NAMED: Final = 5
"""So many new labels are named at most."""
_LINEAR: Final = (MultiLabel, Tagging)
"""Kinds beside classification for whose targets a linear head can be fitted by regression."""
_OF_STEPS: Final = ("budget", "dropout", "word_dropout")
"""Keys of a recipe that say how its steps are taken."""


def find_few(recipe: Recipe, tasks: Sequence[TaskData], checkpoint: Checkpoint) -> frozenset[str]:
    """Return the names of the tasks whose heads begin from logistic regression on the frozen encoder."""
    known = known_labels(checkpoint, tasks)
    return frozenset(
        data.name
        for data in tasks
        if begins_from_probe(recipe, data, known.get(data.name), learned_rows(checkpoint, data.name))
    )


def begins_from_probe(recipe: Recipe, data: TaskData, known: Sequence[str] | None, learned: int) -> bool:
    """Return whether the task's head begins from logistic regression on the frozen encoder.

    So it is for a classification with fewer than `few_rows` training rows a label, unless there is no such regression or
    the head goes on from an earlier model (`known` are its labels). A head that has `learned` rows which were held back does
    not go on, so that it can be validated on them. Other kinds, heads of another form, and tasks with a teacher, whose answers
    the regression would not hear, learn in their own way.
    """
    goes_on = bool(known) and set(known or ()) <= set(data.labels) and not learned
    if (
        goes_on
        or (data.form_of_head is not None and not data.form_of_head.distance)
        or any(example.soft for example in data.train)
        or (recipe.teachers is not None and recipe.teachers.teaches(data.name))
        or reason_against(recipe, data)
        or not data.kind.is_regression
    ):
        return False
    return len(originals(data.train)) < recipe.few_rows * len(data.labels)


def refit_names(tasks: Sequence[TaskData], few: frozenset[str]) -> list[str]:
    """Return the tasks of `few` whose heads are fitted once more after the last step: those without rows named for validation."""
    return [data.name for data in tasks if data.name in few and data.task.validation is None]


def describe_refit_keys(recipe: Recipe, tasks: Sequence[TaskData], few: frozenset[str]) -> list[str]:
    """Return a line that names the keys which do not reach heads that are fitted once more; none without such."""
    names = refit_names(tasks, few)
    frozen = never_trains_encoder(recipe)
    found = [f"tasks.{name}.{key}" for name in names for key in _OF_LOSS if is_set(recipe.tasks[name], key)]
    if names and recipe.label_smoothing:
        found.append("label_smoothing")
    if len(names) == len(tasks):
        found += [f"optimiser.{key}" for key in _rates_of_heads(recipe, frozen=frozen) if is_set(recipe.optimiser, key)]
        found += [key for key in _OF_STEPS if frozen and is_set(recipe, key)]
    found += [f"tasks.{name}.epochs" for name in names if frozen and recipe.tasks[name].epochs is not None]
    if not found:
        return []
    effect = "have no effect: the encoder stays as it is" if frozen else "act on the encoder alone"
    keys = ", ".join(f"`{key}`" for key in found)
    return [
        f"note: few rows: the heads of {', '.join(names)} are fitted once more by logistic regression after the last step, so that {keys} "
        f"{effect if len(found) > 1 else effect.replace('have', 'has').replace('act ', 'acts ')}"
    ]


def refuse_idle_self_training(recipe: Recipe, tasks: Sequence[TaskData], few: frozenset[str]) -> None:
    """Raise SetupError where self-training teaches a head alone, which is fitted once more afterwards on the rows alone."""
    if recipe.self_training is None or not leaves_encoder(recipe, recipe.phases[-1]):
        return
    name = find_task(recipe)
    if name in refit_names(tasks, few):
        problem = (
            f"has no effect: the encoder stays as it is, and the head of {name}, which has few rows, is fitted once more by logistic "
            "regression on its rows; train the encoder, set `few_rows: 0`, or leave it out"
        )
        raise recipe.refusal((SELF_TRAINING,), problem)


def refuse_untaught(
    recipe: Recipe, tasks: Sequence[TaskData], known: Mapping[str, Sequence[str]], few: frozenset[str]
) -> None:
    """Raise SetupError for a task that no phase teaches, and whose head, or the rows of new labels in it, would stay as it begins.

    `known` are the labels that a model before has. What begins from regression, and replies with new words, need no phase.
    """
    for data in tasks:
        before = known.get(data.name, ())
        new = [label for label in data.labels if label not in before]
        goes_on = bool(before) and set(before) <= set(data.labels) and (not new or data.kind.generates)
        if goes_on or data.name in few or data.name not in list_untaught(recipe):
            continue
        what = f"its new label{'' if len(new) == 1 else 's'} {', '.join(new[:NAMED])}" if before else "its head"
        problem = f"no phase teaches it, and {what} would stay untrained; name it in a phase, or set `skip: true`"
        raise recipe.refusal(("tasks", data.name), problem)


def describe_idle_phases(recipe: Recipe, tasks: Sequence[TaskData], few: frozenset[str]) -> list[str]:
    """Return a line that names the phases which train nothing that stays: heads alone, which are fitted once more.

    Behind them no phase trains the encoder, which would learn by these heads.
    """
    names = refit_names(tasks, few)
    behind = [*takewhile(lambda phase: leaves_encoder(recipe, phase), reversed(recipe.phases))]
    idle = [phase.name for phase in reversed(behind) if set(phase.tasks or recipe.tasks) <= {*names}]
    if not idle:
        return []
    phases = f"phase{'' if len(idle) == 1 else 's'} {', '.join(idle)} {'has' if len(idle) == 1 else 'have'}"
    return [
        f"note: few rows: {phases} no effect: heads alone are trained, and those of {', '.join(names)} are fitted once more by logistic "
        "regression after the last step"
    ]


def _rates_of_heads(recipe: Recipe, *, frozen: bool) -> list[str]:
    """Return the keys of the optimiser that act on heads alone."""
    if not frozen:
        return ["head_lr"]
    if recipe.pretrain is not None:
        return []  # they are those of the pre-training, too
    return [key for key in Optimiser.model_fields if key not in {"encoder_lr", "layer_decay"}]


def reason_against(recipe: Recipe, data: TaskData) -> str:
    """Return why the task can have no logistic regression on the frozen encoder; nothing where it can."""
    if not recipe.probe:
        return "the recipe says `probe: false`"
    further = data.kind.per_token or data.kind.several
    if data.kind.generates or (further and not isinstance(data.kind, _LINEAR)):
        return f"a task of kind {data.task.kind} has none"
    if recipe.encoder.source == "scratch":
        return "an encoder from scratch has not learned anything"
    if not further and len({example.labels[0] for example in data.train}) < 2:
        return "the training rows have one label only"
    return ""


def with_few_rows_rate(recipe: Recipe) -> Recipe:
    """Return the recipe with the encoder's rate for few rows, where it sets none and trains the encoder's own weights."""
    if recipe.optimiser.encoder_lr is not None or recipe.around_encoder is not None:
        return recipe
    return recipe.model_copy(update={"optimiser": recipe.optimiser.model_copy(update={"encoder_lr": ENCODER_LR})})


def known_labels(checkpoint: Checkpoint, tasks: Sequence[TaskData]) -> dict[str, list[str]]:
    """Return the labels of each task that the model at the beginning has, too, and by the same kind and form of head: what
    another one learned for these labels is another thing. Empty where it is no model of ours.
    """
    ours = {(data.name, data.task.kind, data.form_of_head) for data in tasks}
    known = checkpoint.manifest.tasks if checkpoint.manifest else ()
    return {
        spec.name: spec.labels for spec in known if (spec.name, spec.kind, spec.head and spec.head.untrained) in ours
    }


def learned_rows(checkpoint: Checkpoint, name: str) -> int:
    """Return how many rows that were held back the head of the model at the beginning has learned."""
    before = checkpoint.manifest.data.get(name) if checkpoint.manifest else None
    return TaskReport.model_validate(before).learned_validation if before is not None else 0


def learned_examples(tasks: Sequence[TaskData], few: frozenset[str]) -> list[list[Example]]:
    """Return the rows that each task learns: its training rows, and with few of them the names of its labels."""
    return [[*task.train, *(name_rows(task) if task.name in few else [])] for task in tasks]
