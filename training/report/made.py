"""How a model was made, as far as its folder and its run say so."""

from dataclasses import dataclass
from pathlib import Path

from ...runtime.errors import SetupError
from ...schemas.manifest import ModelManifest
from ..recipe.recipe import Recipe, load_recipe
from ..run_folders.run_folder import RECIPE, RunRecord


@dataclass(frozen=True)
class Made:
    """The recipe of the training and the record of its run; None where they are not at hand."""

    manifest: ModelManifest
    recipe: Recipe | None = None
    record: RunRecord | None = None


def read_recipe(folder: Path) -> Recipe | None:
    """Return the recipe that a model folder was made by; None where there is none that this version reads."""
    try:
        return load_recipe(folder / RECIPE, past=True)
    except SetupError:
        return None
