"""What each phase of a training taught, by which keys, and what it did to all tasks. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ...runtime.errors import SetupError
from ..recipe.keys.optimiser import Freeze
from ..recipe.keys.phases import Phase
from ..recipe.last_phase import with_self_training
from ..recipe.phase_recipe import is_self_training, leaves_encoder, weighs_tasks
from ..recipe.recipe import Recipe
from ..run_folders.run_folder import PhaseRecord, count_steps
from .made import Made
from .part import Fact, Group, Part

_SAID_ELSEWHERE: Final = frozenset({"name", "tasks", "steps", "held_rows"})
_OUTCOME: Final = "self-training: "
"""How the note of a task begins that says what came of it."""


def describe_phases(made: Made) -> Part | None:
    """Return a group of facts for each phase; None for a training without."""
    if made.record is None or not made.record.phases:
        return None
    recipe = _with_all_phases(made.recipe)
    phases = {phase.name: phase for phase in recipe.phases} if recipe is not None else {}
    groups = [Group(found.name, [*_facts(made, recipe, phases.get(found.name), found)]) for found in made.record.phases]
    return Part("phases", "Phases", groups, ["Each phase begins from the best checkpoint of the one before."])


def _with_all_phases(recipe: Recipe | None) -> Recipe | None:
    try:
        return with_self_training(recipe) if recipe is not None else None
    except SetupError:
        return recipe


def _facts(made: Made, recipe: Recipe | None, phase: Phase | None, found: PhaseRecord) -> Iterator[Fact]:
    yield "teaches", ", ".join(found.tasks)
    if recipe is not None and phase is not None:
        yield from _others(recipe, phase)
        if keys := "; ".join(f"{name} {value}" for name, value in _keys(recipe, phase)):
            yield "keys", keys
        if recipe.weights.method != "static":
            yield "weights of the tasks", recipe.weights.method if weighs_tasks(recipe, phase) else "static"
    kept = f"; the checkpoint of step {found.best_step:,} was kept" if found.best_step else ""
    yield "length", f"{count_steps(found.steps)}{kept}"
    read = ", ".join(f"{task} {count:,}" for task, count in found.rows_read.items() if count)
    if read:
        yield "rows read", read
    main = {task: score["main"] for task, score in found.validation.items() if "main" in score}
    if main:
        yield "validation rows", ", ".join(f"{task} {100 * value:.1f} %" for task, value in main.items())
    if recipe is not None and phase is not None and is_self_training(recipe, phase):
        for task in found.tasks:
            for note in made.manifest.data.get(task, {}).get("notes", ()):
                if note.startswith(_OUTCOME):
                    yield "outcome", note.removeprefix(_OUTCOME)


def _others(recipe: Recipe, phase: Phase) -> Iterator[Fact]:
    """Yield what happens to the tasks that a phase does not teach."""
    others = ", ".join(name for name in recipe.tasks if name not in (phase.tasks or recipe.tasks))
    if not others:
        return
    if leaves_encoder(recipe, phase):
        yield "leaves", f"{others} as they are: the encoder does not change"
    elif phase.held_rows:
        yield "holds", f"{others} to their answers, by {phase.held_rows:g} rows for each row that it teaches"
    else:
        yield "lets change", others


def _keys(recipe: Recipe, phase: Phase) -> Iterator[Fact]:
    """Yield what a phase sets otherwise than the recipe."""
    if is_self_training(recipe, phase) and recipe.self_training is not None:
        given: Mapping[str, Any] = recipe.self_training.model_dump(exclude={"texts", "task"}, exclude_none=True)
        yield "texts", ", ".join(source.path for source in recipe.self_training.texts)
        yield from ((name, f"{value:g}") for name, value in given.items())
        return
    for name in Phase.model_fields:
        value = getattr(phase, name)
        if name in _SAID_ELSEWHERE or value is None:
            continue
        if isinstance(value, Freeze):
            yield name, _frozen(value)
        elif name == "optimiser":
            yield from ((f"optimiser.{key}", _shown(getattr(value, key))) for key in sorted(value.model_fields_set))
        else:
            yield name, _shown(value)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _frozen(value: Freeze) -> str:
    if value.all:
        return "the encoder"
    if not value.layers:
        return "the embeddings"
    return f"the embeddings and the first {'layer' if value.layers == 1 else f'{value.layers} layers'}"
