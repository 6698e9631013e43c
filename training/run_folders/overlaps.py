"""Folders that a training reads while it writes others: neither lies in the other, or what is read would be replaced."""

from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from ...runtime.errors import MurmuraError, SetupError
from ...runtime.model.folders.card import MARK
from ...runtime.model.folders.folder import read_manifest
from ...schemas.manifest import MANIFEST_NAME
from ..recipe.recipe import Recipe

_CARD: Final = "README.md"
_DISPENSABLE: Final = (
    *(".DS_Store", "*/.DS_Store", "Thumbs.db", "*/Thumbs.db", ".nfs*", "*/.nfs*"),
    *(".gitattributes", ".cache/huggingface/*", f".{MANIFEST_NAME}.*"),
)
"""Files of operating systems, of a download from a hub, and of a write that was interrupted: they may be removed."""
_WRITTEN_LATER: Final = ("report.html", "report.json", "report.md")
"""Files that commands write into a model folder once it is there."""


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether `path` is the folder or lies in it, links followed."""
    return path.resolve().is_relative_to(folder.resolve())


def find_overlaps(written: Path, option: str, read: Iterable[str], what: str) -> Iterator[str]:
    """Yield for each folder of `read` that the folder `written` overlaps why it cannot be written, in a line.

    `option` is how the command names it, `what` says what is read. A source that is no folder here, of the hub say, is fine.
    """
    for folder in dict.fromkeys(read):
        other = Path(folder)
        if other.is_dir() and (is_inside(written, other) or is_inside(other, written)):
            yield f"{written}: overlaps the folder of {what}, {folder}, which is read; give {option} another one"


def find_base_overlaps(out: Path, encoder: str) -> Iterator[str]:
    """Yield why no delta from the encoder can be written at `out`: it would replace the base that it needs.

    A delta whose encoder is a delta has the base of that one, and may take its place.
    """
    if not ((Path(encoder) / MANIFEST_NAME).is_file() and read_manifest(Path(encoder)).is_delta):
        yield from find_overlaps(out, "--out", [encoder], "the base of the delta")


def find_working_folder(out: Path) -> Iterator[str]:
    """Yield why a folder cannot be replaced by the command that runs in it: no relative path would lead anywhere afterwards."""
    if is_inside(Path(), out):
        yield f"{out}: the folder that the command runs in, which would be replaced; call it from another one"


def find_foreign_files(folder: Path) -> Iterator[str]:
    """Yield, for a model folder that would be replaced, the first file in it that is none of the model's: it would be removed."""
    try:
        known = {entry.path for entry in read_manifest(folder).files}
    except MurmuraError:  # damaged: which files are its own is not known
        return
    yield from find_others(folder, {MANIFEST_NAME, *_WRITTEN_LATER, *known, *([_CARD] if _has_card(folder) else [])})


def find_others(folder: Path, known: Collection[str]) -> Iterator[str]:
    """Yield the first file, by its path in a folder that would be replaced, that is none of the known ones."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in known and not any(fnmatch(name, each) for each in _DISPENSABLE):
            yield f"{folder}: holds {name}, which would be removed with what is replaced there; move it, or choose another --out"
            return


def _has_card(folder: Path) -> bool:
    """Return whether a folder's README.md is of `murmura models card`."""
    card = folder / _CARD
    return card.is_file() and MARK in card.read_text(encoding="utf-8", errors="replace")


def refuse_run_overlaps(recipe: Recipe, run: Path) -> None:
    """Raise SetupError where the run folder overlaps a folder that the recipe reads: its encoder, or a teacher."""
    for problem in find_run_overlaps(recipe, run):
        raise SetupError(problem)


def find_run_overlaps(recipe: Recipe, run: Path) -> Iterator[str]:
    """Yield why no run of the recipe can be in the folder `run`."""
    yield from find_overlaps(run, "--run", recipe.teacher_folders, "a teacher")
    started_from = [] if recipe.encoder.source == "scratch" else [recipe.encoder.source]
    yield from find_overlaps(run, "--run", started_from, "the encoder")


def find_run_inside(run: Path, out: Path) -> Iterator[str]:
    """Yield why a run cannot be where the folder lies that it ends with."""
    if is_inside(run, out):
        yield f"{run}: the run folder is {out} or lies in it, which --out replaces; give --run another one"
