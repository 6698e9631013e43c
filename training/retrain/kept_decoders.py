"""Decoders that a retraining has no rows for: they go on as they are, before the encoder that has been trained."""

from pathlib import Path

from safetensors.numpy import load_file

from ...runtime.model.delta import CHECKPOINT_NAME
from ...schemas.manifest import ModelManifest, TaskSpec
from ..prepare.data_report import TaskReport
from ..run_folders.run_folder import RunFolder, Weights


def keep_decoders(run: Path, current: Path, manifest: ModelManifest) -> None:
    """Put the tasks of the current version that the run did not train, and their weights, into its record and checkpoint."""
    folder = RunFolder(run)
    record = folder.record()
    trained = {spec.name: spec for spec in record.tasks}
    kept = [spec for spec in manifest.tasks if spec.name not in trained]
    if not kept:
        return
    names = [spec.name for spec in kept if spec.name in manifest.data]
    data = {name: TaskReport.model_validate(manifest.data[name]) for name in names}
    tasks = [trained.get(spec.name, spec) for spec in manifest.tasks]
    before = _decoder_weights(load_file(current / CHECKPOINT_NAME), kept)
    folder.save_record(
        record.model_copy(update={"tasks": tasks, "data": record.data | data}), folder.weights() | before
    )


def _decoder_weights(weights: Weights, tasks: list[TaskSpec]) -> Weights:
    heads = tuple(f"heads.{spec.name}." for spec in tasks)
    return {name: array for name, array in weights.items() if name.startswith(heads)}
