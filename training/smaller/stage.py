"""The stage `smaller` of a recipe: the teacher with fewer or narrower layers is what the tasks start from, and its answers teach them."""

import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ...runtime.errors import SetupError
from ...runtime.model.folders.folder import write_manifest
from ...schemas.manifest import MANIFEST_NAME, Limits, ModelManifest
from ..model.encoder_files import TOKENIZER, WEIGHTS
from ..recipe.keys.smaller import Smaller
from ..recipe.recipe import Encoder, Recipe
from ..run_folders.os_errors import as_os_error, save_tokenizer, write_text
from ..run_folders.run_folder import RunFolder, SmallerRecord, TeacherRecord
from ..run_folders.smaller import RECORD, stage_of
from ..run_folders.trained_model import TrainedModel, open_trained
from .layers import choose_layers, keep_layers
from .neurons import keep_neurons


def run_stage(recipe: Recipe, run_path: Path, *, resume: bool, is_first: bool = True) -> Recipe:
    """Write the smaller teacher into the run folder, where the recipe says so, and return the recipe with that as its
    encoder and the teacher as that of its tasks. Of several processes the first one writes.

    SetupError for a teacher that is no model of ours, or smaller.
    """
    if recipe.smaller is None:
        return recipe
    for problem in () if resume else RunFolder(run_path).find_problems():
        raise SetupError(problem)
    return start_smaller(recipe, stage_of(run_path), write=is_first)


def start_smaller(recipe: Recipe, folder: Path, *, write: bool = True) -> Recipe:
    """Write the smaller model into `folder`, and return the recipe that starts from it."""
    asked = recipe.smaller
    assert asked is not None, "the caller has asked"
    try:
        teacher = open_trained(Path(asked.teacher))
    except SetupError as error:
        raise recipe.refusal(("smaller", "teacher"), str(error)) from None
    for key, wanted in (("layers", asked.layers), ("intermediate_size", asked.intermediate_size)):
        has = getattr(teacher.encoder, key)
        if wanted is not None and wanted > has:
            raise recipe.refusal(("smaller", key), f"{wanted}, but {asked.teacher} has {has}; expected at most {has}")
    if asked.layers == teacher.encoder.layers and "keep" in asked.model_fields_set:
        raise recipe.refusal(("smaller", "keep"), f"has no effect: all {asked.layers} layers of {asked.teacher} stay")
    kept = (asked.layers or teacher.encoder.layers, asked.intermediate_size or teacher.encoder.intermediate_size)
    if kept == (teacher.encoder.layers, teacher.encoder.intermediate_size):
        size = f"{kept[0]} layers of {kept[1]} neurons"
        problem = f"is as large as its teacher: {asked.teacher} has {size}; give fewer `layers`, or a smaller `intermediate_size`"
        raise recipe.refusal(("smaller",), problem)
    if parts := teacher.encoder.parts:
        found = f"{asked.teacher} has {', '.join(parts)} around its layers; expected a model without such parts"
        raise recipe.refusal(("smaller", "teacher"), found)
    if write:
        write_smaller(folder, teacher, asked)
    changes = {"encoder": Encoder(source=str(folder)), "teachers": asked.as_teachers()}
    return recipe.model_copy(update=changes)


def write_smaller(folder: Path, teacher: TrainedModel, asked: Smaller) -> None:
    """Write a model folder without graphs: the teacher's heads on what stays of its layers, and `smaller.json`. It appears whole."""
    of, of_neurons = teacher.encoder.layers, teacher.encoder.intermediate_size
    kept = choose_layers(asked.layers or of, of, asked.keep)
    weights = keep_layers(teacher.weights, teacher.tasks, kept)
    neurons = asked.intermediate_size or of_neurons
    if neurons < of_neurons:
        weights = keep_neurons(weights, neurons)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with as_os_error(part / WEIGHTS):
        save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, part / WEIGHTS)
    (part / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone
    save_tokenizer(teacher.tokenizer, part / TOKENIZER)
    origin = TeacherRecord(folder=str(teacher.folder), sha256=teacher.sha256)
    record = SmallerRecord(teacher=origin, layers=kept, of=of)
    if neurons < of_neurons:
        record = record.model_copy(update={"neurons": neurons, "of_neurons": of_neurons})
    write_text(part / RECORD, record.model_dump_json(indent=2) + "\n")
    manifest = ModelManifest(
        name=teacher.name,
        encoder=teacher.encoder.model_copy(update={"layers": len(kept), "intermediate_size": neurons}),
        tasks=list(teacher.tasks),
        limits=Limits(max_tokens=teacher.max_tokens),
        data={name: report.model_dump(mode="json", exclude_defaults=True) for name, report in teacher.data.items()},
        files=[],
    )
    with as_os_error(part / MANIFEST_NAME):
        write_manifest(part, manifest, {WEIGHTS: "training", TOKENIZER: "tokenizer"})
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
