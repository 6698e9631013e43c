"""The ends of a space: a training is prepared at each, and what cannot be searched, or changes nothing, is refused."""

import re
from collections.abc import Callable, Iterator
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
    that has no effect. `say` hears the notes of the recipe.
    """
    run = materials.prepare(space.recipe, folder)
    scored = digest_scored(run)
    for note in list_notes(run):
        say(note)
    idle: dict[str, tuple[Any, str]] = {}
    for key, value in list_ends(space):
        try:
            run = materials.prepare(space.recipe_of({key: value}), folder)
        except SetupError as error:
            raise space.refusal(key, f"{value!r} is refused: {error}") from None
        if digest_scored(run) != scored:
            problem = f"with {value!r} figures are of other validation rows than the recipe's, and cannot be compared"
            raise space.refusal(key, f"{problem}; name `validation` rows, or leave the key out")
        if note := find_idle_note(key, list_notes(run)):
            idle[key] = value, note

    def notes_with(values: Values) -> list[str] | None:
        try:
            return list_notes(materials.prepare(space.recipe_of(values), folder))
        except (SetupError, ValidationError):
            return None

    for key, (value, note) in idle.items():
        if not _acts_beside_others(space, key, value, notes_with):
            raise space.refusal(key, f"no trial would differ by it: {note}")
    materials.prepare(space.recipe, folder)


def list_notes(run: Fitting) -> list[str]:
    """Return the lines on what a recipe says in vain."""
    return [*describe_frozen_keys(run.recipe), *describe_notes(run.recipe, run.tasks, run.few)]


def find_idle_note(key: str, notes: list[str]) -> str:
    """Return what the first of the notes says of a key, or one that it lies below, that has no effect; nothing where none does."""
    for note in notes:
        said, found, _ = note.partition(" no effect")
        named = re.findall(r"`([^` ]+)`", said) if found else []
        if any(key == each or key.startswith(f"{each}.") for each in named):
            return note.removeprefix("note: ")
    return ""


def _acts_beside_others(space: Space, key: str, value: Any, notes_with: Callable[[Values], list[str] | None]) -> bool:
    """Return whether the key has an effect where another one of the space has another value than the recipe's."""

    def acting() -> Iterator[bool]:
        for other, beside in list_ends(space):
            notes = notes_with({key: value, other: beside}) if other != key else None
            yield notes is not None and not find_idle_note(key, notes)

    return any(acting())
