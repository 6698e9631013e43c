"""What a study is to be: recipe, space, data and storage, read and checked before the first trial."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL

from ...runtime.errors import SetupError
from ..compute.device import free_threads
from ..recipe.keys.tune import Tune
from ..recipe.recipe import Recipe, load_recipe
from ..run_folders.run_folder import RunFolder
from .ends import prepare_ends
from .results import BEST
from .space import Space, open_space
from .storage import place_of, try_storage
from .trial import MEAN, Materials

Say = Callable[[str], None]
_VARYING: Final = ("budget", "phases")
"""Keys of a space with which trials may be scored oftener than the recipe's."""


@dataclass(frozen=True)
class Plan:
    """What a command is given, read and checked."""

    path: Path
    recipe: Recipe
    tune: Tune
    space: Space
    data: Path
    out: Path
    objectives: list[str]
    materials: Materials
    storage: URL
    """Where the study is kept; its password is not shown."""


def open_plan(path: Path, data: Path, out: Path, *, storage: str | None = None, say: Say) -> Plan:
    """Read recipe and data, and prepare a training at each end of the space. SetupError for whatever is wrong."""
    recipe = load_recipe(path)
    tune = recipe.tune
    if tune is None:
        raise recipe.refusal((), "there is no `tune`; expected `tune: {space: {batch_size: [16, 32, 64]}}`, say")
    if recipe.pretrain is not None:
        raise recipe.refusal(
            ("pretrain",),
            "each trial would repeat it; take it once with `murmura pretrain`, and name its folder as `encoder`",
        )
    if recipe.smaller is not None:
        raise recipe.refusal(("smaller",), "trials know nothing of the larger model; search the recipe without it")
    if out.exists() and not out.is_dir():
        raise SetupError(f"{out}: a file, expected a folder; give --out another one")
    if path.resolve().parent == out.resolve() and (path.name == BEST or path.match("trial-*.yaml")):
        raise SetupError(
            f"{path}: a study in {out} writes the recipes of its best trials there; give --out another folder"
        )
    place = place_of(tune.storage if storage is None else storage, out)
    try_storage(place, out)
    objectives = list_objectives(recipe, tune)
    if len(objectives) > 1 and tune.pruning not in {None, "none"}:
        raise recipe.refusal(("tune", "pruning"), f"{tune.pruning} compares one figure, found {len(objectives)}")
    if tune.pruning not in {None, "none"} and _is_scored_once(recipe, tune):
        raise recipe.refusal(
            ("tune", "pruning"),
            f"{tune.pruning} ends no trial before its only scoring, which is its end; raise `budget.evaluations`, or leave it out",
        )
    # Trials that are computed with other threads give other last digits.
    recipe = recipe if recipe.threads else recipe.model_copy(update={"threads": free_threads()})
    space = open_space(recipe, tune)
    plan = Plan(path, recipe, tune, space, data, out, objectives, Materials(data, out), place)
    if anew := plan.space.read_anew:
        say(f"rows are read anew where a trial has another value: {', '.join(anew)}")
    prepare_ends(space, plan.materials, RunFolder(out / "trials" / "none"), say)
    return plan


def list_objectives(recipe: Recipe, tune: Tune) -> list[str]:
    """Return the figures that are to be highest. SetupError for a task that the recipe lacks."""
    if tune.objective == "mean":
        return [MEAN]
    named = list(recipe.tasks) if tune.objective == "each" else tune.objective
    if unknown := next((name for name in named if name not in recipe.tasks), None):
        expected = f"expected `mean`, `each` or some of {', '.join(recipe.tasks)}"
        raise recipe.refusal(("tune", "objective"), f"no task {unknown}; {expected}")
    if not named:
        raise recipe.refusal(("tune", "objective"), "names no task")
    return list(named)


def _is_scored_once(recipe: Recipe, tune: Tune) -> bool:
    """Return whether no training of a study scores its validation rows before its end."""
    has_phases = bool(recipe.phases) or recipe.self_training is not None
    return recipe.budget.evaluations == 1 and not has_phases and not any(key.startswith(_VARYING) for key in tune.space)
