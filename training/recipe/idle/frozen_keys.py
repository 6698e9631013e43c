"""Keys of a recipe without effect where the encoder stays as it is: said in one line. Pure."""

from collections.abc import Iterator
from typing import Final

from ..phase_recipe import never_trains_encoder
from ..recipe import Recipe
from .settings import is_set

DROPPED_BY_ADDING: Final = ("pretrain", "smaller", "freeze", "phases", "weights")
"""Tasks that are added to a model have heads alone, which share nothing: these keys are left out."""
_OF_ENCODER: Final = ("encoder_lr", "layer_decay")
"""Keys of the optimiser that say how the encoder learns."""


def describe_frozen_keys(recipe: Recipe, *, adds: bool = False) -> list[str]:
    """Return a line that names the keys without effect; none without such. `adds`: its tasks are added to a model."""
    found = [*_find(recipe, adds=adds)] if adds or never_trains_encoder(recipe) else []
    if not found:
        return []
    keys = ", ".join(f"`{key}`" for key in found)
    return [f"note: the encoder stays as it is: {keys} {'has' if len(found) == 1 else 'have'} no effect"]


def _find(recipe: Recipe, *, adds: bool) -> Iterator[str]:
    for key in (*(DROPPED_BY_ADDING if adds else ()), "lora", "method"):
        if is_set(recipe, key):
            yield key
    if not adds and is_set(recipe.weights, "cosine"):
        yield "weights.cosine"
    yield from (f"optimiser.{key}" for key in _OF_ENCODER if key in recipe.optimiser.model_fields_set)
