"""Keys of a task or its sources that no format of its files uses."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ...runtime.errors import SetupError
from ..data.files import KEYS, find_format, find_source, unused_keys
from ..data.rules import make_rules, sources_of
from ..recipe.keys.tasks import Task
from ..recipe.recipe import Recipe

_NONE_USES: Final = "no source of this task has a format that uses it; found {}"
_NOT_USED: Final = "{}: the format {} has no `{}`"


def refuse_keys_without_format(name: str, recipe: Recipe, folder: Path) -> None:
    """Raise SetupError for a key of the task that none of its sources uses, because of their formats."""
    task = recipe.tasks[name]
    if task.is_past:
        return
    readings = [(source, make_rules(source, task, None).reading) for source in sources_of(task)]
    formats = [find_format(find_source(folder, source.path), reading) for source, reading in readings]
    for key in _keys_without_format(task, formats):
        raise recipe.refusal(("tasks", name, key), _NONE_USES.format(_listed(formats)))


def describe_unused_keys(recipe: Recipe, folder: Path) -> list[str]:
    """Return a line for each key without effect in the recipe of a finished training.

    Those that depend on the formats of a task's files need all its files in `folder`.
    """
    lines = []
    for name, task in recipe.tasks.items():
        lines += [str(recipe.refusal(("tasks", name), problem)) for problem in task.unused]
        sources, formats = [*sources_of(task)], []
        for source in sources:
            with suppress(SetupError):
                path = find_source(folder, source.path)
                formats.append(find_format(path, make_rules(source, task, None).reading))
                lines += [_NOT_USED.format(path, formats[-1], key) for key in unused_keys(source, formats[-1])]
        if len(formats) == len(sources):
            found = _keys_without_format(task, formats)
            lines += [str(recipe.refusal(("tasks", name, key), _NONE_USES.format(_listed(formats)))) for key in found]
    return lines


def _keys_without_format(task: Task, formats: Collection[str]) -> Iterator[str]:
    for key in sorted(KEYS):
        if getattr(task, key) is not None and all(key in unused_keys(task, each) for each in formats):
            yield key


def _listed(formats: Collection[str]) -> str:
    return ", ".join(sorted(set(formats)))
