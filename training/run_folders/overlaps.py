"""Folders that a training reads while it writes others: neither lies in the other, or what is read would be replaced."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...runtime.errors import SetupError
from ..recipe.recipe import Recipe


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether `path` is the folder or lies in it, links followed."""
    return path.resolve().is_relative_to(folder.resolve())


def find_overlaps(written: Path, option: str, read: Iterable[str], what: str) -> Iterator[str]:
    """Yield for each folder of `read` that the folder `written` would damage why it cannot be written, in a line.

    `option` is how the command names it, `what` says what is read. A source that is no folder here, of the hub say, is fine.
    """
    for folder in dict.fromkeys(read):
        other = Path(folder)
        if other.is_dir() and (is_inside(written, other) or is_inside(other, written)):
            yield f"{written}: overlaps the folder of {what}, {folder}, which would be overwritten; give {option} another one"


def refuse_run_overlaps(recipe: Recipe, run: Path) -> None:
    """Raise SetupError where the run folder overlaps a folder that the recipe reads: its encoder, or a teacher."""
    for problem in find_run_overlaps(recipe, run):
        raise SetupError(problem)


def find_run_overlaps(recipe: Recipe, run: Path) -> Iterator[str]:
    """Yield why no run of the recipe can be in the folder `run`."""
    yield from find_overlaps(run, "--run", recipe.teacher_folders, "a teacher")
    started_from = [] if recipe.encoder.source == "scratch" else [recipe.encoder.source]
    yield from find_overlaps(run, "--run", started_from, "the encoder")
