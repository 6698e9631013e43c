"""Tasks that are put beside those of a finished model: its encoder and its heads stay as they are, to the bit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load_file

from ....runtime.errors import SetupError
from ....runtime.model.deltas.delta import CHECKPOINT_NAME, OF_ENCODER
from ....runtime.model.folders.folder import read_manifest
from ....schemas.manifest import ModelManifest
from ...prepare.data_report import TaskReport
from ...recipe.idle.frozen_keys import DROPPED_BY_ADDING
from ...recipe.keys.teachers import leave_out
from ...recipe.recipe import Encoder, Recipe
from ...run_folders.run_folder import RunFolder, RunRecord, Weights
from ..setup import Fitting


def add_tasks(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with the tasks that the model in `folder` lacks, on its encoder, which is frozen."""
    known = {spec.name for spec in read_manifest(folder).tasks}
    tasks = {name: task for name, task in recipe.tasks.items() if name not in known}
    if not tasks:
        raise SetupError(f"{folder} has every task of the recipe: there is none to add")
    alone = {key: Recipe.model_fields[key].get_default() for key in DROPPED_BY_ADDING}
    encoder = Encoder(source=str(folder), frozen=True)
    teachers = leave_out(recipe.teachers, known)
    return recipe.model_copy(update={**alone, "tasks": tasks, "encoder": encoder, "teachers": teachers})


def keep_tasks(run: Fitting, record: RunRecord, weights: Weights | None) -> tuple[RunRecord, Weights | None]:
    """Return both with the tasks of the model that a run on a frozen encoder began from; those of other runs as they are.

    Without weights those of the run's folder are meant.
    """
    start = run.checkpoint
    if not run.recipe.encoder.frozen or start.manifest is None:
        return record, weights
    layers = record.pooled_layers or start.manifest.pooled_layers
    record = record.model_copy(update={"pooled": record.pooled or start.manifest.pooled, "pooled_layers": layers})
    held = start.weights if start.delta is None else start.delta
    return put_beside(record, run.folder.weights() if weights is None else weights, start.manifest, held)


def keep_untaught(folder: RunFolder, current: Path, manifest: ModelManifest) -> None:
    """Put the tasks of the model `current` that the run was not taught, and their weights, into its record and checkpoint."""
    record = folder.record()
    if {spec.name for spec in manifest.tasks} - {spec.name for spec in record.tasks}:
        before = load_file(current / CHECKPOINT_NAME)
        folder.save_record(*put_beside(record, folder.weights(), manifest, before))


def put_beside(
    record: RunRecord, weights: Weights, manifest: ModelManifest, held: Mapping[str, NDArray[Any]]
) -> tuple[RunRecord, Weights]:
    """Add the tasks of `manifest` that the run did not train, and what `held`, a checkpoint or a delta, has of them."""
    trained = {spec.name: spec for spec in record.tasks}
    kept = [spec.name for spec in manifest.tasks if spec.name not in trained]
    if not kept:
        return record, weights
    own = {spec.name: spec for spec in manifest.tasks}
    data = {name: TaskReport.model_validate(manifest.data[name]) for name in kept if name in manifest.data}
    tasks = [trained.get(name, spec) for name, spec in own.items()]
    tasks += [spec for name, spec in trained.items() if name not in own]
    return (
        record.model_copy(update={"tasks": tasks, "data": data | record.data}),
        weights | {name: array for name, array in held.items() if name not in weights and _is_kept(name, set(trained))},
    )


def _is_kept(name: str, trained: set[str]) -> bool:
    """Return whether a tensor of the model at the beginning stays: changes of the encoder, and heads that were not trained."""
    if name.startswith(OF_ENCODER):
        return True
    return (
        name.removeprefix("derived/").startswith("heads.")
        and name.split("heads.", 1)[1].split(".", maxsplit=1)[0] not in trained
    )
