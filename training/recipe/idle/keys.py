"""Keys of a recipe that have no effect beside its other keys: refused before a training, or named in a line. Pure.

A recipe is only read by this before it is trained: that of a finished training stays readable.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ....runtime.model.kinds.forms import AnswerForm
from ....runtime.model.kinds.registry import KINDS
from ....runtime.settings.yaml_file import Place
from ..keys.methods import Prompt, PTuning
from ..phase_recipe import compares_for_log, never_trains_encoder
from ..recipe import PretrainingRecipe, Recipe
from .phase_keys import describe_dropout, find_in_phases, guesses_by_epochs, list_held
from .settings import Problem, is_set
from .task_keys import find_in_tasks

_OF_PRETRAINING: Final = frozenset(
    {
        "name",
        "description",
        "attribution",
        "encoder",
        "pretrain",
        "tasks",
        "max_tokens",
        "seed",
        "data_seed",
        "precision",
        "trackers",
        "report",
        "threads",
        "save_minutes",
        "allow_unknown",
    }
)
"""Keys that `murmura pretrain` reads, or that say nothing of a training."""
_OF_ITS_OPTIMISER: Final = frozenset({"head_lr", "weight_decay", "warmup", "clip", "schedule"})


def refuse_idle_keys(recipe: Recipe) -> None:
    """Raise SetupError for the first key of a recipe that has no effect beside the others."""
    for place, message in find_idle(recipe):
        raise recipe.refusal(place, message)


def without_idle_keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a recipe that is made from another one without the keys that have no effect in it."""
    made = dict(document)
    while (found := next(find_idle(Recipe.model_validate(made)), None)) is not None:
        made = _without(made, found[0])
    return made


def _without(part: Any, place: Place) -> Any:
    first, *rest = place
    kept: Any = [*part] if isinstance(part, list | tuple) else {**part}
    if rest:
        kept[first] = _without(kept[first], tuple(rest))
    else:
        del kept[first]
    return kept


def find_idle(recipe: Recipe) -> Iterator[Problem]:
    """Yield the place of each key that has no effect beside the others, with the reason."""
    for find in (_find_two_lengths, find_in_tasks, find_in_phases, _find_cosine):
        yield from find(recipe)


def refuse_idle_pretraining(recipe: PretrainingRecipe) -> None:
    """Raise SetupError for the first key of `pretrain` that has no effect beside the others."""
    for place, message in _find_two_lengths(recipe):
        if place[0] == "pretrain":
            raise recipe.refusal(place, message)


def describe_unread_keys(recipe: PretrainingRecipe) -> list[str]:
    """Return a line that names keys which `murmura pretrain` does not read: one recipe may be that of the training, too. What a task
    says of its learning is not named: tasks are there to be learned afterwards.
    """
    found = [
        key for key in type(recipe).model_fields if key not in _OF_PRETRAINING | {"optimiser"} and is_set(recipe, key)
    ]
    found += [
        f"optimiser.{key}"
        for key in type(recipe.optimiser).model_fields
        if key not in _OF_ITS_OPTIMISER and is_set(recipe.optimiser, key)
    ]
    found += ["report.label_errors"] if is_set(recipe.report, "label_errors") else []
    if not found:
        return []
    keys = ", ".join(f"`{key}`" for key in found)
    return [
        f"note: {keys} {'has' if len(found) == 1 else 'have'} no effect on a pre-training, which `pretrain` describes"
    ]


def describe_idle_keys(recipe: Recipe) -> list[str]:
    """Return a line for each key that has no effect in a training, and may stand in a recipe that others share."""
    found = []
    writes = any(KINDS.get(task.kind).generates for task in recipe.tasks.values())
    if recipe.lora is not None and not writes and is_set(recipe.lora, "decoder_rank"):
        found.append("note: `lora.decoder_rank` has no effect: no task writes replies")
    return [*found, *_describe_hold(recipe), *describe_dropout(recipe), *_describe_decay(recipe)]


def _describe_hold(recipe: Recipe) -> list[str]:
    held = {name for name, task in recipe.tasks.items() if any(source.soft for source in task.train)}
    held.update(name for phase in recipe.phases for name in list_held(recipe, phase))
    if is_set(recipe, "hold") and not held:
        return ["note: `hold` has no effect: no row is marked `soft`, and no phase holds other tasks"]
    several = all(KINDS.get(recipe.tasks[name].kind).form is AnswerForm.LABELS for name in held)
    if is_set(recipe.hold, "temperature") and several:
        return [
            "note: `hold.temperature` has no effect: all tasks that are held have several labels, whose answers are compared without it"
        ]
    return []


def _describe_decay(recipe: Recipe) -> list[str]:
    """Return a line for a method that trains one part of the graph, below all layers."""
    asked = (recipe.optimiser, *(phase.optimiser for phase in recipe.phases if phase.optimiser is not None))
    is_below = isinstance(recipe.method, Prompt | PTuning) and not never_trains_encoder(recipe)
    if not is_below or not any(is_set(each, "layer_decay") for each in asked):
        return []
    name = recipe.name_of_method
    return [
        f"note: `layer_decay` is one factor on `encoder_lr`: {name} trains nothing in layers, whose rates could differ"
    ]


def _find_two_lengths(recipe: Recipe) -> Iterator[Problem]:
    for key in ("budget", "pretrain"):
        section = getattr(recipe, key)
        if key == "budget" and guesses_by_epochs(recipe):
            continue
        if section is not None and section.steps is not None and "epochs" in section.model_fields_set:
            yield (key, "epochs"), f"has no effect beside `{key}.steps`; expected one of them"


def _find_cosine(recipe: Recipe) -> Iterator[Problem]:
    """Yield where gradients are compared for the log, where a method compares them everywhere."""
    if is_set(recipe.weights, "cosine") and not compares_for_log(recipe):
        yield (
            ("weights", "cosine"),
            f"has no effect: {recipe.weights.method} compares gradients over the whole encoder in each step",
        )
