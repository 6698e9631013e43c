"""Which model teaches which task, and what it must have for that."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ....runtime.errors import SetupError
from ....schemas.manifest import TaskSpec
from ...kinds.registry import kind_of
from ...prepare.tasks import TaskData
from ...recipe.phase_recipe import list_untaught
from ...recipe.recipe import Recipe
from ...run_folders.trained_model import TrainedModel, open_trained


def folders_of(recipe: Recipe, tasks: Sequence[TaskData]) -> dict[Path, list[int]]:
    """Return the folder of each teacher, with the numbers of the tasks that it teaches.

    SetupError where a task is none of the recipe's, or cannot be taught: replies, rows marked `soft`, and what no phase teaches.
    One model for every task is that of those which can have a teacher.
    """
    if recipe.teachers is None:
        return {}
    models, untaught = recipe.teachers.models, list_untaught(recipe)
    every = [data.name for data in tasks if not data.kind.generates]
    named = {name: models for name in every if name not in untaught} if isinstance(models, str) else models
    places = {data.name: at for at, data in enumerate(tasks)}
    found: dict[Path, list[int]] = {}
    for name, folder in named.items():
        if name not in places:
            raise recipe.refusal((_key(recipe),), f"no task {name}; expected some of {', '.join(places)}")
        if name in untaught:
            raise recipe.refusal(
                (_key(recipe),), f"no phase teaches {name}, so that its teacher has no effect; leave it out"
            )
        _refuse_task(recipe, tasks[places[name]])
        found.setdefault(Path(folder), []).append(places[name])
    if not found:
        key = _key(recipe)
        whose = "that a phase teaches " if untaught else ""
        raise recipe.refusal((key,), f"every task {whose}writes replies, which have no teacher; leave `{key}` out")
    return found


def _key(recipe: Recipe) -> str:
    """Return the key that names the teachers."""
    return "teachers" if recipe.smaller is None else "smaller"


def _refuse_task(recipe: Recipe, data: TaskData) -> None:
    if data.kind.generates:
        raise recipe.refusal((_key(recipe),), f"{data.name} writes replies, which have no teacher; leave it out")
    if any(example.soft for example in data.train):
        problem = f"{data.name} has rows marked `soft`, whose target is an answer already; leave one of them out"
        raise recipe.refusal((_key(recipe),), problem)


def refuse_teachers(recipe: Recipe, tasks: Sequence[TaskData], tokenizer: Tokenizer) -> None:
    """Raise SetupError in one line for a teacher that cannot teach its tasks. `tokenizer` is the student's."""
    folders = folders_of(recipe, tasks)
    is_whole = len(recipe.tasks) == recipe.count_written()  # else it may be meant for a task that is left out here
    if folders and is_whole and all(tasks[at].kind.several for taught in folders.values() for at in taught):
        _refuse_temperature(recipe)
    for folder, taught in folders.items():
        try:
            model = open_trained(folder)
        except SetupError as error:
            raise recipe.refusal((_key(recipe),), str(error)) from None
        for at in taught:
            spec_of(recipe, model, tasks[at])
            if tasks[at].kind.per_token:
                _refuse_other_tokens(recipe, model, tasks[at].name, tokenizer)


def _refuse_temperature(recipe: Recipe) -> None:
    """Raise SetupError where it is set: answers of several labels are compared without it."""
    asked = recipe.teachers if recipe.smaller is None else recipe.smaller
    if asked is not None and "temperature" in asked.model_fields_set:
        problem = "has no effect: all tasks with a teacher have several labels, whose answers are compared without it"
        raise recipe.refusal((_key(recipe), "temperature"), problem)


def _refuse_other_tokens(recipe: Recipe, model: TrainedModel, name: str, tokenizer: Tokenizer) -> None:
    """Raise SetupError where the teacher of a task that answers each token reads other tokens, or fewer."""
    problem, limit = f"{name} answers each token, and {model.folder}", model.encoder.max_positions
    if model.tokenizer.to_str() != tokenizer.to_str():
        raise recipe.refusal((_key(recipe),), f"{problem} has another tokenizer; expected the one of `encoder`")
    if recipe.max_tokens > limit:
        raise recipe.refusal((_key(recipe),), f"{problem} reads at most {limit}; lower max_tokens {recipe.max_tokens}")


def spec_of(recipe: Recipe, model: TrainedModel, data: TaskData) -> TaskSpec:
    """Return the teacher's task; SetupError unless it has the kind and the labels of the recipe's, in whatever order."""
    found = next((spec for spec in model.tasks if spec.name == data.name), None)
    if found is None:
        known = ", ".join(spec.name for spec in model.tasks)
        raise recipe.refusal((_key(recipe),), f"{model.folder} has no task {data.name}; it has {known}")
    theirs, ours = kind_of(found), data.kind
    if theirs is not ours:
        problem = f"{data.name} of {model.folder} is of kind {theirs.name}, here it is of kind {ours.name}"
        raise recipe.refusal((_key(recipe),), problem)
    if set(found.labels) != set(data.labels):
        raise recipe.refusal(
            (_key(recipe),), f"{data.name} of {model.folder} {_explain_labels(found.labels, data.labels)}"
        )
    return found


def _explain_labels(theirs: Sequence[str], ours: Sequence[str]) -> str:
    lacks, more = ([each for each in one if each not in other] for one, other in ((ours, theirs), (theirs, ours)))
    parts = [f"lacks the label {lacks[0]!r}"] if lacks else []
    parts += [f"has the label {more[0]!r}, which the rows here lack"] if more else []
    return f"{' and '.join(parts)}; expected the same {len(ours)} labels"
