"""A recipe as it is in one of its phases. Pure."""

from typing import Any

from .keys.optimiser import Freeze
from .keys.phases import Phase
from .keys.self_training import SELF_TRAINING
from .keys.weights import Weights
from .recipe import Recipe


def recipe_of(recipe: Recipe, phase: Phase) -> Recipe:
    """Return the recipe as it is in a phase."""
    own = {key: value for key in ("evaluations", "patience") if (value := getattr(phase, key)) is not None}
    changes: dict[str, Any] = {
        "budget": recipe.budget.model_copy(update={**own, "steps": steps_of(recipe, phase)}),
        "optimiser": recipe.optimiser.override(phase.optimiser),
        "dropout": recipe.dropout if phase.dropout is None else phase.dropout,
        "freeze": phase.freeze or recipe.freeze,
    }
    if not weighs_tasks(recipe, phase):
        changes["weights"] = Weights(cosine=recipe.weights.cosine)
    return recipe.model_copy(update=changes)


def steps_of(recipe: Recipe, phase: Phase) -> int | None:
    """Return how many steps a phase has; None where passes over its rows say that."""
    return recipe.budget.steps if takes_steps_of_budget(recipe, phase) else phase.steps


def takes_steps_of_budget(recipe: Recipe, phase: Phase) -> bool:
    """Return whether the steps of the recipe's budget, if it has some, are the phase's. Self-training always goes by epochs."""
    return phase.steps is None and phase.epochs is None and not is_self_training(recipe, phase)


def is_self_training(recipe: Recipe, phase: Phase) -> bool:
    """Return whether the phase is that of self-training."""
    return recipe.self_training is not None and phase.name == SELF_TRAINING


def teaches(recipe: Recipe, phase: Phase, task: str) -> bool:
    """Return whether a task learns its rows in a phase. Self-training goes on from what a head has learned before."""
    return not is_self_training(recipe, phase) and (phase.tasks is None or task in phase.tasks)


def list_untaught(recipe: Recipe) -> list[str]:
    """Return the tasks that no phase teaches; none in a training without phases."""
    phases = recipe.phases
    return [name for name in recipe.tasks if phases and not any(teaches(recipe, phase, name) for phase in phases)]


def leaves_encoder(recipe: Recipe, phase: Phase | None = None) -> bool:
    """Return whether the encoder stays as it is, in a phase or in a training without phases."""
    asked = (phase.freeze if phase is not None else None) or recipe.freeze
    return recipe.encoder.frozen or (asked is not None and asked.all)


def never_trains_encoder(recipe: Recipe) -> bool:
    """Return whether the encoder stays as it is throughout, in each phase or in a training without phases."""
    return all(leaves_encoder(recipe, phase) for phase in recipe.phases or (None,))


def weighs_tasks(recipe: Recipe, phase: Phase | None = None) -> bool:
    """Return whether a method may weigh the tasks against each other: all of them are taught, and the encoder that they share."""
    teaches_all = phase is None or phase.tasks is None or set(phase.tasks) >= set(recipe.tasks)
    return teaches_all and not leaves_encoder(recipe, phase)


def compares_for_log(recipe: Recipe) -> bool:
    """Return whether `weights.cosine` says over which parameters gradients are compared: not where a method combines them in each
    phase.
    """
    combines = recipe.weights.combines_gradients
    return not combines or not all(weighs_tasks(recipe, phase) for phase in recipe.phases or (None,))


def describe_static_phases(recipe: Recipe) -> list[str]:
    """Return a line that names the phases in which the method of `weights` has no effect; none without such."""
    names = [phase.name for phase in recipe.phases if not weighs_tasks(recipe, phase)]
    if recipe.weights.method == "static" or not names:
        return []
    where = f"{'phase' if len(names) == 1 else 'phases'} {', '.join(names)}"
    return [
        f"note: {where}: `weights: {recipe.weights.method}` has no effect, the tasks have static weights: it acts in phases that "
        "teach all tasks and train the encoder"
    ]


def with_whole_freeze(recipe: Recipe, layers: int) -> Recipe:
    """Return the recipe with `freeze` of all of an encoder's `layers` by their number as `encoder`, which is the same."""
    phases = tuple(
        phase.model_copy(update={"freeze": Freeze(all=True)}) if _names_all(phase.freeze, layers) else phase
        for phase in recipe.phases
    )
    changes: dict[str, Any] = {"phases": phases} if phases != recipe.phases else {}
    if _names_all(recipe.freeze, layers):
        changes["freeze"] = Freeze(all=True)
    return recipe.model_copy(update=changes) if changes else recipe


def _names_all(freeze: Freeze | None, layers: int) -> bool:
    return freeze is not None and not freeze.all and freeze.layers >= layers
