"""Keys of a recipe that have no effect beside its other keys: refused before a training, or named in a line. Pure.

A recipe is only read by this before it is trained: that of a finished training stays readable.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ....runtime.model.kinds.registry import KINDS
from ....runtime.settings.yaml_file import Place
from ..keys.phases import Phase
from ..phase_recipe import is_self_training, leaves_encoder, steps_of
from ..recipe import PretrainingRecipe, Recipe

BETWEEN_TASKS: Final = ("normalise", "sampling")
"""Keys that say how the tasks of a recipe go together, beside `weights`."""
OF_A_TASK_AMONG_OTHERS: Final = ("loss_weight", "sampling_weight")
_OF_ENCODER: Final = ("encoder_lr", "layer_decay")
_OF_PRETRAINING: Final = frozenset(
    {
        "name",
        "description",
        "attribution",
        "encoder",
        "pretrain",
        "tasks",
        "max_tokens",
        "seed",
        "data_seed",
        "precision",
        "trackers",
        "report",
        "threads",
        "save_minutes",
        "allow_unknown",
    }
)
"""Keys that `murmura pretrain` reads, or that say nothing of a training."""
_OF_ITS_OPTIMISER: Final = frozenset({"head_lr", "weight_decay", "warmup", "clip", "schedule"})
Problem = tuple[Place, str]


def refuse_idle_keys(recipe: Recipe) -> None:
    """Raise SetupError for the first key of a recipe that has no effect beside the others."""
    for place, message in _find_idle(recipe):
        raise recipe.refusal(place, message)


def without_idle_keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a recipe that is made from another one without the keys that have no effect in it."""
    made = dict(document)
    while (found := next(_find_idle(Recipe.model_validate(made)), None)) is not None:
        made = _without(made, found[0])
    return made


def _without(part: Any, place: Place) -> Any:
    first, *rest = place
    kept: Any = [*part] if isinstance(part, list | tuple) else {**part}
    if rest:
        kept[first] = _without(kept[first], tuple(rest))
    else:
        del kept[first]
    return kept


def _find_idle(recipe: Recipe) -> Iterator[Problem]:
    for find in (
        _find_two_lengths,
        _find_between_tasks,
        _find_lengths,
        _find_patience,
        _find_in_phases,
        _find_few_rows,
    ):
        yield from find(recipe)


def refuse_idle_pretraining(recipe: PretrainingRecipe) -> None:
    """Raise SetupError for the first key of `pretrain` that has no effect beside the others."""
    for place, message in _find_two_lengths(recipe):
        if place[0] == "pretrain":
            raise recipe.refusal(place, message)


def describe_unread_keys(recipe: PretrainingRecipe) -> list[str]:
    """Return a line that names keys which `murmura pretrain` does not read: one recipe may be that of the training, too. What a task
    says of its learning is not named: tasks are there to be learned afterwards.
    """
    found = [
        key for key in type(recipe).model_fields if key not in _OF_PRETRAINING | {"optimiser"} and is_set(recipe, key)
    ]
    found += [
        f"optimiser.{key}"
        for key in type(recipe.optimiser).model_fields
        if key not in _OF_ITS_OPTIMISER and is_set(recipe.optimiser, key)
    ]
    found += ["report.label_errors"] if is_set(recipe.report, "label_errors") else []
    if not found:
        return []
    keys = ", ".join(f"`{key}`" for key in found)
    return [
        f"note: {keys} {'has' if len(found) == 1 else 'have'} no effect on a pre-training, which `pretrain` describes"
    ]


def describe_idle_keys(recipe: Recipe) -> list[str]:
    """Return a line for each key that has no effect in a training, and may stand in a recipe that others share."""
    found = []
    writes = any(KINDS.get(task.kind).generates for task in recipe.tasks.values())
    if recipe.lora is not None and not writes and is_set(recipe.lora, "decoder_rank"):
        found.append("note: `lora.decoder_rank` has no effect: no task writes replies")
    soft = any(source.soft for task in recipe.tasks.values() for source in task.train)
    if is_set(recipe, "hold") and not soft and not any(_holds(recipe, phase) for phase in recipe.phases):
        found.append("note: `hold` has no effect: no row is marked `soft`, and no phase holds other tasks")
    return found


def can_end_early(patience: int, evaluations: int) -> bool:
    """Return whether so much patience ends something before the last evaluation: the first one is always the best so far."""
    return patience <= evaluations - 2


def is_set(model: Any, key: str) -> bool:
    """Return whether a key is set to something else than its default."""
    return key in model.model_fields_set and getattr(model, key) != type(model).model_fields[key].get_default()


def _find_two_lengths(recipe: Recipe) -> Iterator[Problem]:
    for key in ("budget", "pretrain"):
        section = getattr(recipe, key)
        if key == "budget" and _guesses_by_epochs(recipe):
            continue
        if section is not None and section.steps is not None and "epochs" in section.model_fields_set:
            yield (key, "epochs"), f"has no effect beside `{key}.steps`; expected one of them"


def _guesses_by_epochs(recipe: Recipe) -> bool:
    """Return whether the passes of self-training are those of the budget, whatever the steps of the phases before."""
    guessing = [phase for phase in recipe.phases if is_self_training(recipe, phase)]
    return any(
        phase.epochs is None and any(recipe.tasks[name].epochs is None for name in phase.tasks or recipe.tasks)
        for phase in guessing
    )


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


def _find_lengths(recipe: Recipe) -> Iterator[Problem]:
    """Yield epochs that no phase goes by."""
    for name, task in recipe.tasks.items():
        if task.epochs is not None and not _goes_by_epochs(recipe, name):
            where = (
                "every phase that teaches it has its own length" if recipe.phases else "`budget.steps` is the length"
            )
            yield ("tasks", name, "epochs"), f"has no effect: {where}"
    if recipe.budget.epochs is not None and recipe.phases and all(_has_length(recipe, each) for each in recipe.phases):
        yield ("budget", "epochs"), "has no effect: every phase has its own `epochs` or `steps`"


def _goes_by_epochs(recipe: Recipe, name: str) -> bool:
    """Return whether a task's epochs say how long something takes, or what share of the rows of some steps is its own."""
    if not recipe.phases:
        return recipe.budget.steps is None or recipe.count_written() > 1
    taught = [(phase, phase.tasks or [*recipe.tasks]) for phase in recipe.phases]
    return any(
        phase.epochs is None and (steps_of(recipe, phase) is None or len(names) > 1)
        for phase, names in taught
        if name in names
    )


def _has_length(recipe: Recipe, phase: Phase) -> bool:
    return phase.epochs is not None or steps_of(recipe, phase) is not None


def _find_patience(recipe: Recipe) -> Iterator[Problem]:
    """Yield patience that is not at its end before the last evaluation."""
    budget, acts = recipe.budget, not recipe.phases
    for at, phase in enumerate(recipe.phases):
        evaluations = phase.evaluations or budget.evaluations
        if phase.patience is not None and not can_end_early(phase.patience, evaluations):
            yield ("phases", at, "patience"), _explain_patience(phase.patience, evaluations)
        acts |= phase.patience is None and budget.patience is not None and can_end_early(budget.patience, evaluations)
    if budget.patience is None:
        return
    if not acts or (not recipe.phases and not can_end_early(budget.patience, budget.evaluations)):
        yield ("budget", "patience"), _explain_patience(budget.patience, budget.evaluations)


def _explain_patience(patience: int, evaluations: int) -> str:
    return (
        f"{patience} ends nothing before the last of {evaluations} evaluations, as the first is always the best so far; set "
        f"`evaluations` to {patience + 2} or more, or leave it out"
    )


def _find_in_phases(recipe: Recipe) -> Iterator[Problem]:
    for at, phase in enumerate(recipe.phases):
        place, frozen = ("phases", at), leaves_encoder(recipe, phase)
        if "held_rows" in phase.model_fields_set and not _others(recipe, phase) and not recipe.skipped:
            yield (*place, "held_rows"), "has no effect: the phase teaches every task, so that there is none to hold"
        elif "held_rows" in phase.model_fields_set and frozen:
            yield (*place, "held_rows"), "has no effect: the encoder stays as it is, so that the others cannot change"
        rates = phase.optimiser if frozen else None
        for key in _OF_ENCODER if rates is not None else ():
            needed = key == "encoder_lr" and recipe.optimiser.override(rates).method != "adamw"
            if rates is not None and key in rates.model_fields_set and not needed:
                yield (*place, "optimiser", key), "has no effect: the encoder stays as it is in this phase"


def _others(recipe: Recipe, phase: Phase) -> list[str]:
    """Return the tasks that a phase does not teach."""
    return [name for name in recipe.tasks if name not in (phase.tasks or recipe.tasks)]


def _holds(recipe: Recipe, phase: Phase) -> bool:
    return bool(_others(recipe, phase)) and phase.held_rows > 0 and not leaves_encoder(recipe, phase)


def _find_few_rows(recipe: Recipe) -> Iterator[Problem]:
    if not is_set(recipe, "few_rows") or not recipe.few_rows:
        return
    if not recipe.probe:
        yield ("few_rows",), "has no effect beside `probe: false`: no head begins from the probe"
    elif recipe.encoder.source == "scratch":
        yield ("few_rows",), "has no effect with an encoder from scratch: there is no probe for heads to begin from"
