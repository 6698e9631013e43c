"""Compares two model folders on a recipe's held-out rows with the gate's statistics."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...runtime.errors import SetupError
from ...runtime.model.deltas.delta import assemble
from ...runtime.model.folders.folder import read_manifest
from ...runtime.model.model import Model
from ..evaluate.evaluate import sets_of
from ..kinds.registry import kind_of
from ..prepare.format_keys import describe_unused_keys
from ..prepare.reading import read_part
from ..recipe.job import Gate
from ..recipe.recipe import Recipe, load_recipe
from .held_out import HeldOutSet, group_of_rows
from .judged_versions import count_versions
from .report import sets_section
from .verdict import GateResult
from .weigh import weigh

RECIPE: Final = "recipe.yaml"


def compare_folders(
    old: Path, new: Path, data: Path, *, recipe: Path | None = None, base: Path | None = None, strict: bool = False
) -> GateResult:
    """Let two model or delta folders answer the test parts and reports of a recipe, by default that of the old folder.

    `data` is where the recipe's data lies, `base` the base of a delta when that is a folder. Tasks that only one of the
    models has are notes. A label that a model does not have it gets wrong. SetupError when there is nothing to compare.
    """
    file = recipe or old / RECIPE
    read = load_recipe(file, past=True)
    with _load(old, base) as before, _load(new, base) as after:
        shared = [name for name in read.tasks if name in before.tasks and name in after.tasks]
        for name in shared:
            one, other = (kind_of(model.tasks[name]) for model in (before, after))
            if one is not other:
                raise SetupError(
                    f"task {name}: {old} has it as {one.name}, {new} as {other.name}; they cannot be compared"
                )
        sets = [held for name in shared for held in _held_out(read, name, data)]
        if not sets:
            raise SetupError(
                f"{file}: no task of both models names `test` or `reports`; there is nothing to compare; name another "
                "recipe with --recipe"
            )
        every = {*before.tasks, *after.tasks}
        notes = describe_unused_keys(read, data)
        notes += [
            f"{name} is not compared: no held-out rows for both" for name in sorted(every - {s.task for s in sets})
        ]
        versions = {place: each.versions for place, each in count_versions(old, sets, new).items()}
        return weigh(before, after, sets, Gate(strict=strict), notes, versions)


def describe_comparison(result: GateResult, old: Path, new: Path) -> str:
    """Return the comparison as Markdown."""
    lines = [f"# {old} against {new}", "", *(f"- {note}" for note in result.notes)]
    lines += [*([""] if result.notes else []), *sets_section(result.comparisons)]
    return "\n".join(lines) + "\n"


def _held_out(recipe: Recipe, name: str, data: Path) -> Iterator[HeldOutSet]:
    task = recipe.tasks[name]
    scope = task.out_of_scope.label if task.out_of_scope else None
    for set_name, sources in sets_of(task).items():
        examples = read_part(sources, task, data, seed=recipe.data_seed)
        yield HeldOutSet(name, set_name, examples, scope, group=group_of_rows(task))


@contextmanager
def _load(folder: Path, base: Path | None) -> Iterator[Model]:
    """Yield the model of a folder; a delta is assembled apart."""
    if not read_manifest(folder).is_delta:
        yield Model.load(folder, device="auto")
        return
    with tempfile.TemporaryDirectory(prefix="murmura-") as scratch:
        assemble(folder, base, Path(scratch) / "model", weights=False)
        yield Model.load(Path(scratch) / "model", device="auto")
