"""The recipe of a retraining: the one before, with what the job and the version say instead. Pure.

What the recipe before sets and the retraining does not use is said in one line.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

from ...schemas.manifest import ModelManifest
from ..recipe.idle.keys import without_idle_keys
from ..recipe.idle.task_keys import OF_A_TASK_AMONG_OTHERS
from ..recipe.job import Job
from ..recipe.keys.seeds import MOST_SEED
from ..recipe.keys.tasks import Task
from ..recipe.recipe import Recipe

_NOT_KEPT: Final[dict[str, Any]] = {
    **dict.fromkeys(
        (
            "tasks",
            "lora",
            "method",
            "threads",
            "pretrain",
            "weights",
            "phases",
            "self_training",
            "teachers",
            "smaller",
            "tune",
        ),
        True,
    ),
    "budget": {"epochs", "steps"},
    "optimiser": {"method"},
}
"""Keys of the recipe before that a job decides, also by leaving them out. All others are carried on."""
DECIDED_OF_TASK: Final = ("epochs", "objective")
"""Keys of a task that a retraining does not use: its passes are the job's, and there is no second stage."""
OF_VERSION: Final = frozenset(
    {"attribution", "encoder", "few_rows", "max_tokens", "name", "pooled", "pretrain", "tasks", "tune"}
)
"""Keys whose effect the version has already, or says of itself, and one that no training reads."""
_SECTIONS: Final = ("budget", "hold", "optimiser")
"""Keys that are looked at one by one."""


def make_recipe(
    job: Job,
    manifest: ModelManifest,
    recipe: Recipe | None,
    tasks: Mapping[str, Any],
    attribution: str,
    *,
    steps: int | None = None,
) -> dict[str, Any]:
    """Return the document of the recipe; `steps` replaces the job's budget. Keys of the recipe before that have no effect beside those
    of the job are left out.
    """
    fit, steps = job.fit, steps or job.fit.steps
    length = {"epochs": fit.epochs} if steps is None else {"steps": steps}
    if steps is not None and len(tasks) > 1:  # then passes say the shares of the tasks
        tasks = {name: {**task, "epochs": fit.epochs} for name, task in tasks.items()}
    kept = recipe.model_dump(mode="json", exclude=_NOT_KEPT, exclude_none=True) if recipe else {}
    if not 0 <= kept.get("data_seed", 0) <= MOST_SEED:  # of a training before seeds had bounds
        del kept["data_seed"]
    named = {
        "name": manifest.name,
        "max_tokens": manifest.limits.max_tokens,
        "pooled": "distilled" if manifest.pooled_layers else manifest.pooled,
        "encoder": f"{manifest.name}-{manifest.version}",
        "budget": kept.get("budget", {}) | length | {"evaluations": fit.evaluations},
        # Heads go on as they are: replayed rows alone would teach a new one less than the head knows.
        "few_rows": 0,
        "optimiser": kept.get("optimiser", {}) | {"encoder_lr": fit.encoder_lr, "head_lr": fit.head_lr},
        "hold": job.hold.model_dump(include={"weight", "temperature"}),
        "tasks": dict(tasks),
        "attribution": attribution,
    }
    also = fit.model_dump(
        mode="json", exclude={"epochs", "steps", "evaluations", "encoder_lr", "head_lr"}, exclude_none=True
    )
    made = kept | also | named
    return without_idle_keys(made) if tasks else made


def describe_dropped_keys(
    job: Job, manifest: ModelManifest, recipe: Recipe, untaught: Collection[str] = ()
) -> list[str]:
    """Return a line that names what the recipe sets otherwise than the retraining has it; none without such keys. Tasks that are
    `untaught` have no rows in it.
    """
    taught = {spec.name: {"train": "its rows"} for spec in manifest.tasks if spec.name not in untaught}
    found = [*_dropped(recipe, make_recipe(job, manifest, recipe, taught, ""))]
    for name, task in recipe.tasks.items():
        found += [f"tasks.{name}.{key}" for key in DECIDED_OF_TASK if getattr(task, key) is not None]
        for key in OF_A_TASK_AMONG_OTHERS if [*taught] == [name] else ():
            found += [f"tasks.{name}.{key}"] if getattr(task, key) != Task.model_fields[key].get_default() else []
    if not found:
        return []
    keys = ", ".join(f"`{key}`" for key in found)
    return [f"of the old recipe, {keys} {'has' if len(found) == 1 else 'have'} no effect: the job decides"]


def _dropped(recipe: Recipe, used: Mapping[str, Any]) -> Iterator[str]:
    for key in Recipe.model_fields:
        if key not in recipe.model_fields_set or key in OF_VERSION:
            continue
        default = _plain(Recipe.model_fields[key].get_default())
        before, now = _plain(getattr(recipe, key)), used.get(key, default)
        if key in _SECTIONS:
            asked, now = getattr(recipe, key).model_fields_set, {**default, **now}
            yield from (f"{key}.{each}" for each in sorted(asked) if each in before and before[each] != now.get(each))
        elif before != now:
            yield key


def _plain(value: Any) -> Any:
    """Return a value as it stands in a document."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
