"""A recipe as it is in one of its phases. Pure."""

from typing import Any

from .phases import Phase
from .recipe import Hold, Recipe
from .self_training import SELF_TRAINING
from .weights import Weights


def recipe_of(recipe: Recipe, phase: Phase) -> Recipe:
    """Return the recipe as it is in a phase."""
    own = {key: value for key in ("evaluations", "patience") if (value := getattr(phase, key)) is not None}
    changes: dict[str, Any] = {
        "budget": recipe.budget.model_copy(update=own),
        "optimiser": recipe.optimiser.override(phase.optimiser),
        "dropout": recipe.dropout if phase.dropout is None else phase.dropout,
        "freeze": phase.freeze or recipe.freeze,
    }
    if is_self_training(recipe, phase):
        assert recipe.self_training is not None, "the phase is its own"
        changes["hold"] = Hold(weight=recipe.self_training.weight, temperature=1.0)
    if (phase.tasks is not None and set(phase.tasks) != set(recipe.tasks)) or (phase.freeze and phase.freeze.all):
        changes["weights"] = Weights()
    return recipe.model_copy(update=changes)


def is_self_training(recipe: Recipe, phase: Phase) -> bool:
    """Return whether the phase is that of self-training."""
    return recipe.self_training is not None and phase.name == SELF_TRAINING
