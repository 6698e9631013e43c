"""What is asked of the keys of a recipe: whether one is set, and whether the recipe is whole. Pure."""

from typing import Any

from ....runtime.settings.yaml_file import Place
from ..recipe import Recipe

Problem = tuple[Place, str]


def is_set(model: Any, key: str) -> bool:
    """Return whether a key is set to something else than its default."""
    return key in model.model_fields_set and getattr(model, key) != type(model).model_fields[key].get_default()


def is_whole(recipe: Recipe) -> bool:
    """Return whether the recipe has all tasks that it was written with: a key may be meant for one that is left out."""
    return len(recipe.tasks) == recipe.count_written()
