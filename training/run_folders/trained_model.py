"""A finished model as its network is built: from a run folder, a model folder or a delta."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ...runtime.errors import SetupError
from ...runtime.model.deltas.delta import apply_delta, find_base, read_base
from ...schemas.manifest import MANIFEST_NAME, Base, EncoderSpec, Sha256, TaskSpec
from ..model.encoder_files import plain_tokenizer
from ..model.encoders import load
from ..prepare.data_report import TaskReport
from .run_folder import RECORD, WEIGHTS, RunFolder, RunRecord, digest

Weights = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TrainedModel:
    """Sizes, weights of encoder and heads, tokenizer, and how it reads. `sha256` is that of the file with what it learned."""

    folder: Path
    name: str
    encoder: EncoderSpec
    weights: Weights
    tokenizer: Tokenizer
    tasks: Sequence[TaskSpec]
    max_tokens: int
    sha256: Sha256
    data: Mapping[str, TaskReport] = field(default_factory=dict)
    """What it was trained on, by task."""


def open_trained(folder: Path) -> TrainedModel:
    """Open the folder of a model, a delta or a finished run of ours. SetupError for anything else, and for damaged files."""
    if (folder / RECORD).is_file():
        return _open_run(folder)
    if not (folder / MANIFEST_NAME).is_file():
        raise SetupError(f"{folder}: no model and no finished run; expected a folder with {MANIFEST_NAME} or {RECORD}")
    found = load(str(folder))
    manifest = found.manifest
    assert manifest is not None, "it has a manifest"
    role = "delta" if manifest.is_delta else "training"
    (sha256,) = [entry.sha256 for entry in manifest.files if entry.role == role]
    tokens = manifest.limits.max_tokens
    data = {name: TaskReport.model_validate(report) for name, report in manifest.data.items()}
    return TrainedModel(
        folder, manifest.name, found.spec, found.weights, found.tokenizer, manifest.tasks, tokens, sha256, data
    )


def _open_run(folder: Path) -> TrainedModel:
    run = RunFolder(folder)
    record = run.record()
    weights = run.weights()
    if record.low_rank:
        weights = dict(apply_delta(base_weights(record), weights))
    sha256 = digest(folder / WEIGHTS)
    spec, tokens, tokenizer = record.encoder, record.max_tokens, plain_tokenizer(run.tokenizer())
    return TrainedModel(folder, record.name, spec, weights, tokenizer, record.tasks, tokens, sha256, record.data)


def base_weights(record: RunRecord) -> Weights:
    """Load the encoder that the run started from; SetupError when it is another file by now."""
    base = Base(source=record.encoder.source, sha256=record.encoder.sha256)
    folder = Path(record.encoder_folder) if record.encoder_folder else None
    found = read_base(find_base(base.source, base.sha256, folder), base)
    return {name: array.astype(np.float32) for name, array in found.items() if not name.startswith("heads.")}
