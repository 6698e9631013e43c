"""The pre-training as a stage of a recipe: its encoder is what the tasks start from."""

from collections.abc import Callable
from pathlib import Path

from ...runtime.errors import SetupError
from ..prepare.tasks import TaskData, read_task
from ..recipe.recipe import Encoder, Recipe
from ..run_folders.run_folder import PRETRAIN, PRETRAINED, RunFolder
from .loop import describe, pretrain
from .material import read_material
from .setup import prepare


def run_stage(
    recipe: Recipe,
    recipe_path: Path,
    data: Path,
    run_path: Path,
    *,
    resume: bool,
    quiet: bool,
    print_line: Callable[[str], None],
) -> Recipe:
    """Pre-train where the recipe says so, and return the recipe with the result as its encoder.

    The tasks are read first, so that a mistake in their rows is found before. From scratch the encoder's rate stays that of
    an encoder from scratch. With `resume` it goes on, or is left as it is where it has come to its end.
    """
    if recipe.pretrain is None:
        return recipe
    for problem in () if resume else RunFolder(run_path).find_problems():
        raise SetupError(problem)
    stage, encoder = run_path / PRETRAIN, run_path / PRETRAINED
    tasks = read_tasks(recipe, data)
    pretrain(recipe, recipe_path, data, stage, encoder, tasks=tasks, resume=resume, quiet=quiet, print_line=print_line)
    optimiser = recipe.optimiser
    if recipe.encoder.source == "scratch":
        optimiser = optimiser.model_copy(update={"encoder_lr": recipe.encoder_lr})
    made = Encoder(source=str(encoder), frozen=recipe.encoder.frozen)
    return recipe.model_copy(update={"encoder": made, "optimiser": optimiser})


def read_tasks(recipe: Recipe, data: Path) -> list[TaskData]:
    """Read the tasks whose training texts a pre-training may read."""
    return [read_task(name, recipe, data) for name in recipe.tasks]


def check_texts(recipe: Recipe, data: Path) -> list[str]:
    """Return what a pre-training would learn from, a line each. SetupError for what is wrong."""
    assert recipe.pretrain is not None, "the caller has asked"
    material = read_material(recipe, recipe.pretrain, data, read_tasks(recipe, data))
    return describe(prepare(recipe, recipe.pretrain, material, RunFolder(Path())))
