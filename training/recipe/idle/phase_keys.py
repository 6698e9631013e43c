"""Keys that have no effect in or beside the phases of a recipe, and lengths that nothing goes by. Pure."""

from collections.abc import Iterator
from typing import Final

from ..keys.phases import Phase
from ..phase_recipe import is_self_training, leaves_encoder, steps_of
from ..recipe import Recipe
from .settings import Problem, is_set, is_whole

_OF_ENCODER: Final = ("encoder_lr", "layer_decay")
_HAS_OWN: Final = "has no effect: every phase has its own"


def find_in_phases(recipe: Recipe) -> Iterator[Problem]:
    """Yield place and message of each such key."""
    for find in (_find_lengths, _find_patience, _find_of_phases, _find_beside_own):
        yield from find(recipe)


def describe_dropout(recipe: Recipe) -> list[str]:
    """Return a line where each phase has its own `dropout`: that of the recipe is read after the training alone."""
    if not is_set(recipe, "dropout") or not _all_have(recipe, "dropout"):
        return []
    return [
        "note: `dropout` has no effect on the training: every phase has its own; `murmura suggest --strategy disagreement` reads it"
    ]


def can_end_early(patience: int, evaluations: int) -> bool:
    """Return whether so much patience ends something before the last evaluation: the first one is always the best so far."""
    return patience <= evaluations - 2


def list_held(recipe: Recipe, phase: Phase) -> list[str]:
    """Return the tasks that a phase holds to their answers."""
    return _others(recipe, phase) if phase.held_rows > 0 and not leaves_encoder(recipe, phase) else []


def guesses_by_epochs(recipe: Recipe) -> bool:
    """Return whether the passes of self-training are those of the budget, whatever the steps of the phases before."""
    guessing = [phase for phase in recipe.phases if is_self_training(recipe, phase)]
    return any(
        phase.epochs is None and any(recipe.tasks[name].epochs is None for name in phase.tasks or recipe.tasks)
        for phase in guessing
    )


def _find_lengths(recipe: Recipe) -> Iterator[Problem]:
    """Yield epochs that nothing goes by."""
    if not is_whole(recipe):
        return
    for name, task in recipe.tasks.items():
        if task.epochs is not None and not _goes_by_epochs(recipe, name):
            where = (
                "every phase that teaches it has its own length" if recipe.phases else "`budget.steps` is the length"
            )
            yield ("tasks", name, "epochs"), f"has no effect: {where}"
    if recipe.budget.epochs is None:
        return
    if recipe.phases and all(_has_length(recipe, each) for each in recipe.phases):
        yield ("budget", "epochs"), f"{_HAS_OWN} `epochs` or `steps`"
    elif all(task.epochs is not None for task in recipe.tasks.values()):
        yield ("budget", "epochs"), "has no effect: every task has its own"


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
    """Yield patience that is not at its end before the last evaluation, or that no phase takes."""
    budget, acts = recipe.budget, not recipe.phases
    for at, phase in enumerate(recipe.phases):
        evaluations = phase.evaluations or budget.evaluations
        if phase.patience is not None and not can_end_early(phase.patience, evaluations):
            yield ("phases", at, "patience"), _explain_patience(phase.patience, evaluations)
        acts |= phase.patience is None and budget.patience is not None and can_end_early(budget.patience, evaluations)
    if budget.patience is None or (recipe.phases and not is_whole(recipe)):
        return
    if _all_have(recipe, "patience"):
        yield ("budget", "patience"), _HAS_OWN
    elif not acts or (not recipe.phases and not can_end_early(budget.patience, budget.evaluations)):
        yield ("budget", "patience"), _explain_patience(budget.patience, budget.evaluations)


def _explain_patience(patience: int, evaluations: int) -> str:
    return (
        f"{patience} ends nothing before the last of {evaluations} evaluations, as the first is always the best so far; set "
        f"`evaluations` to {patience + 2} or more, or leave it out"
    )


def _find_of_phases(recipe: Recipe) -> Iterator[Problem]:
    """Yield keys of phases that cannot act there."""
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


def _find_beside_own(recipe: Recipe) -> Iterator[Problem]:
    """Yield keys of the recipe that each phase has itself. `dropout` is read after the training, too."""
    if is_set(recipe.budget, "evaluations") and _all_have(recipe, "evaluations"):
        yield ("budget", "evaluations"), _HAS_OWN
    if is_set(recipe, "freeze") and _all_have(recipe, "freeze"):
        yield ("freeze",), _HAS_OWN
    if not is_whole(recipe) or recipe.optimiser.encoder_lr is None:
        return
    training = [phase for phase in recipe.phases if not leaves_encoder(recipe, phase)]
    own = [phase.optimiser is not None and phase.optimiser.encoder_lr is not None for phase in training]
    needed = recipe.optimiser.method != "adamw"
    made = recipe.pretrain is not None  # behind a pre-training from scratch the recipe has the rate of one
    if training and all(own) and not needed and not made:
        yield ("optimiser", "encoder_lr"), "has no effect: every phase that trains the encoder has its own"


def _all_have(recipe: Recipe, key: str) -> bool:
    """Return whether there are phases, and each has a key itself."""
    return is_whole(recipe) and bool(recipe.phases) and all(getattr(each, key) is not None for each in recipe.phases)


def _others(recipe: Recipe, phase: Phase) -> list[str]:
    """Return the tasks that a phase does not teach."""
    return [name for name in recipe.tasks if name not in (phase.tasks or recipe.tasks)]
