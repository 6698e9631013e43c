"""The space of a study: which places of the recipe it changes, the values there, and which of them change what is read. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from pydantic import ValidationError

from ...runtime.errors import SetupError
from ...runtime.settings.yaml_file import Place, describe_type
from ..recipe.idle.keys import find_idle, without_idle_keys
from ..recipe.keys.tune import Dimension, Tune
from ..recipe.recipe import Recipe

Document = dict[str, Any]
Values = Mapping[str, Any]
"""By key of the space, a value of each."""
_OF_THE_STUDY: Final = frozenset(
    {"name", "tune", "pretrain", "smaller", "trackers", "save_minutes", "report", "threads", "tasks"}
)
"""Keys at the top that no trial may change; tasks may change below."""
_TRAINING: Final = frozenset(
    {
        *("description", "attribution", "batch_size", "optimiser", "freeze", "phases", "lora", "hold", "dropout"),
        *("label_smoothing", "word_dropout", "normalise", "weights", "sampling", "precision", "accumulate", "pooled"),
        *("trackers", "report", "threads", "save_minutes", "tune", "method"),
    }
)
"""Keys at the top that change how is trained, and nothing of what is read."""
_TRAINING_OF_TASKS: Final = frozenset(
    {
        *("epochs", "loss_weight", "sampling_weight", "label_smoothing", "class_weights", "focal"),
        *("default_for", "open"),
    }
)
_OF_NO_FIGURE: Final = frozenset({"description", "attribution", "pooled", "allow_unknown"})
_OF_NO_FIGURE_OF_TASKS: Final = frozenset({"default_for", "open"})
"""Keys that change nothing which validation rows are scored by."""
_BUDGET_OF_DATA: Final = "validation_rows"
_ABOUT_THE_BUDGET: Final = ("trials", "minutes", "storage", "failures")
"""Keys of `tune` that may change while a study goes on."""


@dataclass(frozen=True)
class Space:
    """A recipe as a document, its keys written out, and what varies in it."""

    recipe: Recipe
    document: Document
    dimensions: dict[str, Dimension]
    places: dict[str, Place]

    def apply(self, values: Values) -> Document:
        """Return the document with these values, without keys that have no effect beside them; names of choices are theirs, too.
        ValidationError where the recipe refuses the values.
        """
        return without_idle_keys(self._set_values(values))

    def _set_values(self, values: Values) -> Document:
        made = self.document
        for key, value in values.items():
            made = _set(made, self.places[key], _choice(self.dimensions[key], value))
        return made

    def recipe_of(self, values: Values) -> Recipe:
        """Return the recipe with these values. ValidationError where it refuses them."""
        made = Recipe.model_validate(self.apply(values))
        made._file = self.recipe._file
        return made

    def find_idle(self, key: str, values: Values) -> str:
        """Return why a key has no effect beside these values; nothing where it has, or where the recipe refuses them."""
        try:
            problems = list(find_idle(Recipe.model_validate(self._set_values(values))))
        except ValidationError:
            return ""
        return next((message for place, message in problems if self.places[key][: len(place)] == place), "")

    def own_values(self) -> dict[str, Any]:
        """Return the values that the recipe itself has, where they lie in the space; names for choices."""
        dumped = self.recipe.model_dump(mode="json")
        found = {key: _get(dumped, place) for key, place in self.places.items()}
        own = {key: value for key, value in found.items() if self.dimensions[key].has(value)}
        return {key: int(value) if self.dimensions[key].is_whole else name_of(value) for key, value in own.items()}

    def refusal(self, key: str, message: str) -> SetupError:
        """Return the error for a dimension, with its line."""
        return self.recipe.refusal(("tune", "space", key), message)

    @property
    def read_anew(self) -> list[str]:
        """Keys that change which rows are read, or how."""
        return [key for key, place in self.places.items() if not _is_of_training(place)]


def open_space(recipe: Recipe, tune: Tune) -> Space:
    """Find the keys of the space in the recipe, and let the recipe judge each end and each choice. SetupError for the first
    that it refuses.
    """
    document = {**recipe.model_dump(mode="json", exclude_unset=True, exclude={"tune"}), "name": recipe.name}
    space = Space(recipe, document, dict(tune.space), {})
    for key in tune.space:
        space.places[key] = _find_place(space, key)
    for key, value in list_ends(space):
        try:
            space.recipe_of({key: value})
        except ValidationError as error:
            raise space.refusal(key, f"{value!r} is refused: {_explain(error, space.places[key])}") from None
    return space


def list_ends(space: Space) -> Iterator[tuple[str, Any]]:
    """Yield each key with each of its ends or choices."""
    for key, dimension in space.dimensions.items():
        yield from ((key, value) for value in dimension.ends)


def name_of(value: Any) -> Any:
    """Return what stands for a choice in the study: itself, or a list or mapping as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, sort_keys=True)


def digest_study(recipe: Recipe, tune: Tune, data: Mapping[str, str]) -> str:
    """Return by what a study is known: recipe, space and data, and not its budget."""
    asked = tune.model_dump(mode="json", exclude=set(_ABOUT_THE_BUDGET))
    known = [recipe.model_dump(mode="json", exclude={"tune"}), asked, dict(data)]
    return sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def digest_reading(recipe: Recipe) -> str:
    """Return by what the rows of a recipe are known, as they are read and encoded."""
    kept = recipe.model_dump(mode="json", exclude={*_TRAINING, "budget"})
    if recipe.encoder.source != "scratch":
        del kept["seed"]
    kept["tasks"] = {
        name: {key: value for key, value in task.items() if key not in _TRAINING_OF_TASKS}
        for name, task in kept["tasks"].items()
    }
    return sha256(json.dumps([kept, recipe.budget.validation_rows], sort_keys=True).encode()).hexdigest()


def _find_place(space: Space, key: str) -> Place:
    """Return the path of a key; names of tasks may hold dots, too."""
    place: list[int | str] = []
    node: Any = space.document
    rest = key
    while rest:
        part = _first_part(node, rest)
        if node is None and place and part.isdecimal():
            above = ".".join(map(str, place))
            raise space.refusal(key, f"the recipe has no list `{above}` to count in; write it out in the recipe")
        if isinstance(node, list):
            if not part.isdecimal() or int(part) >= len(node):
                raise space.refusal(key, f"expected a number below {len(node)} in place of {part!r}")
            place.append(int(part))
            node = node[int(part)]
        else:
            place.append(part)
            node = node.get(part) if isinstance(node, dict) else None
        rest = rest[len(part) + 1 :]
    _refuse_place(space, key, place)
    return tuple(place)


def _first_part(node: Any, rest: str) -> str:
    named = [name for name in node if rest == name or rest.startswith(f"{name}.")] if isinstance(node, dict) else []
    return max(named, key=len) if named else rest.partition(".")[0]


def _refuse_place(space: Space, key: str, place: list[int | str]) -> None:
    if place[0] in _OF_THE_STUDY and (place[0] != "tasks" or len(place) < 3):
        raise space.refusal(key, f"a trial cannot change `{place[0]}`; expected a key of the training")
    if (name := _name_without_effect(place)) is not None:
        raise space.refusal(key, f"a trial's figure does not depend on `{name}`; leave it out")
    if place[0] == "tasks" and place[1] not in space.recipe.tasks:
        raise space.refusal(key, f"no task {place[1]}; expected one of {', '.join(space.recipe.tasks)}")
    if place[0] == "tasks" and place[2] in {"skip", "kind", "test", "reports"}:
        raise space.refusal(key, f"a trial cannot change `{place[2]}` of a task")
    if place[0] == "tasks" and place[2] == "objective":
        raise space.refusal(key, "a trial ends before the second stage, which `objective` is of; search it by hand")
    for at in range(1, len(place)):
        node = _get(space.document, tuple(place[:at]))
        if node is not None and not isinstance(node, dict | list):
            above = ".".join(map(str, place[:at]))
            raise space.refusal(key, f"`{above}` is {node!r} in the recipe, which has no keys")


def _name_without_effect(place: Sequence[int | str]) -> int | str | None:
    if place[0] == "tasks" and len(place) > 2:
        return place[2] if place[2] in _OF_NO_FIGURE_OF_TASKS else None
    return place[0] if place[0] in _OF_NO_FIGURE else None


def _get(node: Any, place: Place) -> Any:
    for part in place:
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int):
            node = node[part]
        else:
            return None
    return node


def _set(node: Any, place: Place, value: Any) -> Any:
    """Return a copy of a document with another value at a place."""
    if not place:
        return value
    first, rest = place[0], place[1:]
    if isinstance(first, int):
        return [_set(each, rest, value) if at == first else each for at, each in enumerate(node)]
    below = node or {}
    return {**below, first: _set(below.get(first), rest, value)}


def _choice(dimension: Dimension, value: Any) -> Any:
    """Return the choice that a name stands for; a number of a range is itself."""
    if dimension.choices is None:
        return value
    return next(each for each in dimension.choices if each == value or name_of(each) == value)


def _is_of_training(place: Place) -> bool:
    if place[0] == "tasks":
        return place[2] in _TRAINING_OF_TASKS
    if place[0] == "budget":
        return place[-1] != _BUDGET_OF_DATA
    return place[0] in _TRAINING or place == ("seed",)


def _explain(error: ValidationError, place: Place) -> str:
    """Return the first mistake in a line; an unknown key comes first, others follow from it."""
    problems = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    first = problems[0]
    if first["type"] == "extra_forbidden":
        return f"the recipe has no key `{'.'.join(map(str, first['loc']))}`"
    said = describe_type(first["type"]) or str(first["msg"]).removeprefix("Value error, ").replace("\n", " ")
    where = ".".join(map(str, first["loc"]))
    return said if first["loc"] == place or not where else f"{where}: {said}"
