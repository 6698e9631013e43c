"""Which trainings a comparison takes, and the recipe of each. Pure.

Jointly the recipe is trained as it stands. Alone a task reads as many of its rows as jointly, in steps of the same size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ...runtime.errors import SetupError
from ..compute.phase_rows import count_phase, count_run_rows
from ..recipe.idle.keys import without_idle_keys
from ..recipe.keys.phases import Phase
from ..recipe.phase_recipe import compares_for_log, list_untaught, never_trains_encoder, steps_of
from ..recipe.recipe import Recipe

JOINT: Final = "joint"
ALONE: Final = "alone"
_BETWEEN_TASKS: Final = ("weights", "sampling", "teachers")
"""Keys of a recipe that say how tasks go together."""
_OF_A_TASK: Final = ("loss_weight", "sampling_weight")
_ALIKE: Final = 0.005
"""Passes that differ by so little of them are the same."""
Document = dict[str, Any]


class Training(NamedTuple):
    """One training of a comparison: of all tasks, or of one."""

    task: str | None
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{JOINT}-{self.seed}" if self.task is None else f"{ALONE}-{self.task}-{self.seed}"

    @property
    def title(self) -> str:
        return f"{self.task or 'all tasks jointly'}{' alone' if self.task else ''}, seed {self.seed}"


def list_trainings(tasks: Sequence[str], seeds: Sequence[int]) -> list[Training]:
    """Return the trainings in the order in which they are taken: a seed after the other, the joint one first."""
    return [Training(task, seed) for seed in seeds for task in (None, *tasks)]


def refuse_recipe(recipe: Recipe, seeds: Sequence[int]) -> None:
    """Raise SetupError where there is nothing to compare."""
    if len(recipe.tasks) < 2:
        raise recipe.refusal(("tasks",), f"expected two tasks or more to compare, found {len(recipe.tasks)}")
    if never_trains_encoder(recipe):
        place = "encoder" if recipe.encoder.frozen else "freeze" if recipe.freeze is not None else "phases"
        raise recipe.refusal((place,), "heads on a frozen encoder share nothing that is trained: there is no transfer")
    if recipe.pretrain is not None:
        raise recipe.refusal(
            ("pretrain",),
            "each training would repeat it; take it once with `murmura pretrain`, and name its folder as `encoder`",
        )
    if recipe.self_training is not None:
        raise recipe.refusal(
            ("self_training",), "a task of its own has no such phase; leave it out to compare what labels teach"
        )
    if recipe.smaller is not None:
        raise recipe.refusal(("smaller",), "a smaller model learns its teacher, not what tasks do to each other")
    for name in list_untaught(recipe):
        raise recipe.refusal(
            ("tasks", name), "no phase teaches it, so that there is nothing to compare; name it in a phase"
        )
    if len(set(seeds)) < len(seeds) or not seeds:
        raise SetupError(f"--seeds: expected numbers that differ, at least one; found {', '.join(map(str, seeds))}")


def count_reads(recipe: Recipe, rows: Mapping[str, int]) -> dict[str, int]:
    """Return how many rows of each task the joint training reads, without phases; `rows` are those of its training parts."""
    counts = count_run_rows(recipe, rows)
    return {name: sum(step[at] for step in counts) for at, name in enumerate(rows)}


def make_joint(recipe: Recipe) -> Document:
    """Return the document of the recipe; its log compares gradients over the whole encoder, unless it says where."""
    made = _document(recipe)
    if not compares_for_log(recipe):
        return made
    return {**made, "weights": {"cosine": "encoder", **made.get("weights", {})}}


def make_alone(recipe: Recipe, name: str, rows: Mapping[str, int]) -> Document:
    """Return the document of a recipe that trains one task alone."""
    made = _document(recipe)
    own = _without(made["tasks"][name], _OF_A_TASK)
    if not recipe.phases and (changed := _changed_epochs(recipe, name, count_reads(recipe, rows)[name], rows)):
        own["epochs"] = changed
    made = {**_without(made, _BETWEEN_TASKS), "tasks": {name: own}}
    if "steps" in made.get("budget", {}):
        made["budget"] = _without(made["budget"], ("steps",))
    if recipe.phases:
        made["phases"] = [*_phases(recipe, made["phases"], name, rows)]
    return without_idle_keys(made)


def _changed_epochs(
    recipe: Recipe, name: str, reads: int, rows: Mapping[str, int], phase: Phase | None = None
) -> float | None:
    """Return the passes in which a task reads so many rows, where it would make others alone."""
    epochs, count = reads / rows[name], rows[name]
    alone = (phase.epochs if phase is not None else None) or recipe.epochs_of(recipe.tasks[name], count)
    return round(epochs, 4) if abs(epochs - alone) > _ALIKE * epochs else None


def _phases(recipe: Recipe, phases: Sequence[Document], name: str, rows: Mapping[str, int]) -> Iterator[Document]:
    """Yield the phases that teach the task; of the rows that several tasks share it takes its part."""
    for phase, made in zip(recipe.phases, phases, strict=True):
        if name not in (phase.tasks or recipe.tasks):
            continue
        own, reads = _without(made, ("tasks", "held_rows")), count_phase(recipe, phase, rows).count(name)
        if steps_of(recipe, phase) is not None:
            own["steps"] = max(1, round(reads / recipe.batch_size))
        elif changed := _changed_epochs(recipe, name, reads, rows, phase):
            own["epochs"] = changed
        yield own


def _document(recipe: Recipe) -> Document:
    made = recipe.model_dump(mode="json", exclude_unset=True, exclude={"tune", "report"})
    return {**made, "name": recipe.name}


def _without(mapping: Mapping[str, Any], keys: Sequence[str]) -> Document:
    return {key: value for key, value in mapping.items() if key not in keys}
