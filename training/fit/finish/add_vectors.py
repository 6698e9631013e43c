"""Vectors that are put beside the tasks of a finished delta: its base's, from the layers of its encoder. No task is trained."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ....runtime.model.folders.folder import read_manifest
from ...data.example import Example
from ...model.encoders import build_encoder, load
from ...prepare.data_report import TaskReport
from ...prepare.tasks import read_tasks
from ...recipe.recipe import Recipe
from ...run_folders.run_folder import RunFolder, RunRecord
from ..rows.encoding import encode_ids
from .vector_head import fit_vector_head


def lacks_vectors_alone(recipe: Recipe, folder: Path) -> bool:
    """Return whether the model in `folder`, a delta, has every task of the recipe, but not its distilled vectors."""
    manifest = read_manifest(folder)
    wanted = recipe.pooled == "distilled" and manifest.is_delta and not manifest.pooled_layers
    return wanted and set(recipe.tasks) <= {spec.name for spec in manifest.tasks}


def add_vectors(
    recipe_path: Path, recipe: Recipe, data: Path, folder: Path, out: RunFolder, write: Callable[[str], Any]
) -> RunRecord:
    """Leave a run folder of the delta in `folder` with vectors, fitted on the training texts of the recipe's tasks."""
    tasks, before = read_tasks(recipe, data), load(str(folder))
    manifest, held = before.manifest, before.delta
    assert manifest is not None, f"{folder}: expected a model of ours"
    assert held is not None, f"{folder}: expected a delta"
    out.begin(recipe_path, before.tokenizer)
    before.tokenizer.enable_truncation(recipe.max_tokens)
    rows = chain.from_iterable(task.train for task in tasks if not task.kind.generates)
    texts = encode_ids([_text(example) for example in rows], before.tokenizer)
    before.tokenizer.no_truncation()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = build_encoder(before.spec, before.weights, dropout=0.0).to(device)
    head = fit_vector_head(encoder, before, texts, seed=recipe.data_seed, device=device)
    write(f"vectors: cosine {head.similarity:.3f} to those of the base, on texts held out")
    out.save_weights(held | head.weights)
    record = RunRecord(
        name=manifest.name,
        encoder=before.spec,
        tasks=manifest.tasks,
        max_tokens=manifest.limits.max_tokens,
        pooled=True,
        pooled_layers=head.layers,
        recipe_sha256=out.recipe_sha256,
        attribution=recipe.attribution,
        low_rank=True,
        seed=recipe.seed,
        steps=0,
        best_step=0,
        cpu_seconds=0,
        validation={},
        data={name: TaskReport.model_validate(found) for name, found in manifest.data.items()},
    )
    return out.save_record(record)


def _text(example: Example) -> str:
    given = example.given
    return given if isinstance(given, str) else given.text
