"""The ends of a space: a training is prepared at each, and what cannot be searched, or changes nothing, is refused."""

import re
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from ...runtime.errors import SetupError
from ..fit.check_data import describe_notes
from ..fit.setup import Fitting
from ..recipe.idle.frozen_keys import describe_frozen_keys
from ..run_folders.run_folder import RunFolder
from .space import Space, Values, list_ends
from .trial import Materials, digest_scored

Say = Callable[[str], None]


def prepare_ends(space: Space, materials: Materials, folder: RunFolder, say: Say) -> None:
    """Make the run of the recipe and of each end of the space: what the encoder or the machine refuses is found now, and so is a key
    that has no effect. `say` is called with each note on the recipe.
    """
    run = materials.prepare(space.recipe, folder)
    scored = digest_scored(run)
    for note in list_notes(run):
        say(note)
    idle: dict[str, tuple[Any, str]] = {}
    acting: set[str] = set()
    for key, value in list_ends(space):
        try:
            run = materials.prepare(space.recipe_of({key: value}), folder)
        except SetupError as error:
            raise space.refusal(key, f"{value!r} is refused: {error}") from None
        if digest_scored(run) != scored:
            problem = f"with {value!r} figures are of other validation rows than the recipe's, and cannot be compared"
            raise space.refusal(key, f"{problem}; name `validation` rows, or leave the key out")
        if why := space.find_idle(key, {key: value}) or find_idle_note(key, list_notes(run)):
            idle[key] = value, why
        elif not _is_neutral(space, key, value):
            acting.add(key)

    def acts(key: str, values: Values) -> bool:
        try:
            notes = list_notes(materials.prepare(space.recipe_of(values), folder))
        except (SetupError, ValidationError):
            return False
        return not (space.find_idle(key, values) or find_idle_note(key, notes))

    for key, (value, why) in idle.items():
        beside = ({key: value, other: there} for other, there in list_ends(space) if other != key)
        if key not in acting and not any(acts(key, values) for values in beside):
            raise space.refusal(key, f"no trial would differ by it: {why}")
    materials.prepare(space.recipe, folder)


def _is_neutral(space: Space, key: str, value: Any) -> bool:
    """Return whether a value is the recipe's own, or as good as none: it is not named as without effect, whether or not its key acts."""
    return not value or value == space.own_values().get(key)


def list_notes(run: Fitting) -> list[str]:
    """Return the lines on keys of a recipe that have no effect."""
    return [*describe_frozen_keys(run.recipe), *describe_notes(run.recipe, run.tasks, run.few)]


def find_idle_note(key: str, notes: list[str]) -> str:
    """Return what the first of the notes says of a key, or one that it lies below, that has no effect; nothing where none does."""
    for note in notes:
        said, found, _ = note.partition(" no effect")
        named = re.findall(r"`([^` ]+)`", said) if found else []
        if any(key == each or key.startswith(f"{each}.") for each in named):
            return note.removeprefix("note: ")
    return ""
