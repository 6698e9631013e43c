"""What torch makes of texts for a choice: mean states, and answers of passes with dropout."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ...runtime.errors import SetupError
from ...runtime.model.deltas.delta import apply_delta
from ...runtime.model.inputs import Input
from ...schemas.manifest import ModelManifest, TaskSpec
from ..fit.rows.encoding import encode_ids
from ..kinds.heads import pool_mean
from ..kinds.kind import Kind
from ..kinds.registry import kind_of
from ..model.encoders import build_encoder
from ..model.network import MultiTask
from ..model.padding import in_order, pad
from ..recipe.recipe import load_recipe
from ..run_folders.run_folder import RECIPE, RunFolder
from ..run_folders.trained_model import base_weights

if TYPE_CHECKING:
    from transformers import BertModel

Array = NDArray[Any]
_BATCH: Final = 64


def mean_states(encoder: "BertModel", texts: Sequence[NDArray[np.integer[Any]]]) -> Array:
    """Return the mean of the last layer over the tokens of each text (token ids): [N, H] in fp32, in their order."""
    encoder.eval()
    found = np.zeros((len(texts), encoder.config.hidden_size), np.float32)
    for rows in in_order(texts, _BATCH):
        ids, mask = pad([texts[row] for row in rows])
        with torch.no_grad():
            states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        found[rows] = pool_mean(states, mask).numpy()
    return found


class DropoutPasses:
    """Asks a run's network with dropout, several times."""

    def __init__(self, network: MultiTask, tokenizer: Tokenizer, task: int, *, passes: int, seed: int) -> None:
        self._network, self._tokenizer, self._task = network, tokenizer, task
        self._passes, self._seed = passes, seed

    def ask(self, texts: Sequence[Input]) -> list[Array]:
        """Return for each text its logits in all passes: [T, C], for tagging [T, S, C] with special tokens."""
        ids = encode_ids(texts, self._tokenizer)
        self._network.train()
        passes = []
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            for _ in range(self._passes):
                passes.append(self._pass(ids))
        return [np.stack([each[row] for each in passes]) for row in range(len(ids))]

    def embed(self, texts: Sequence[Input]) -> Array:
        """Return the mean states of texts, without dropout: [N, H]."""
        return mean_states(self._network.encoder, encode_ids(texts, self._tokenizer))

    def _pass(self, texts: Sequence[NDArray[np.integer[Any]]]) -> dict[int, Array]:
        found = {}
        by_token = self._network.per_token[self._task]
        for rows in in_order(texts, _BATCH):
            ids, mask = pad([texts[row] for row in rows])
            with torch.no_grad():
                logits = self._network(self._task, ids, mask).float().numpy()
            for row, values in zip(rows, logits, strict=True):
                found[row] = values[: len(texts[row])] if by_token else values
        return found


@dataclass(frozen=True)
class _Head:
    """What the network asks of a task."""

    name: str
    kind: Kind
    spec: TaskSpec


def refuse_other_run(path: Path, manifest: ModelManifest, spec: TaskSpec) -> None:
    """Raise SetupError for a run that the model was not made from: it would judge by other labels or another network."""
    record = RunFolder(path).record()
    labels = next((task.labels for task in record.tasks if task.name == spec.name), None)
    if manifest.recipe not in {None, record.recipe_sha256} or labels not in (None, spec.labels):
        raise SetupError(
            f"{path}: the run of another model: expected the one that {manifest.name} {manifest.version} was exported from"
        )


def open_run(path: Path, task: str, *, passes: int, seed: int) -> DropoutPasses:
    """Open the network of a finished run. SetupError for a folder that is none, and a run without the task or without dropout."""
    run = RunFolder(path)
    record = run.record()
    specs = [spec for spec in record.tasks if not kind_of(spec).generates]
    names = [spec.name for spec in specs]
    if task not in names:
        raise SetupError(f"{path}: the run has no task {task!r}; it has {', '.join(names)}")
    rate = load_recipe(path / RECIPE, past=True).dropout
    if passes and not rate:
        raise SetupError(f"{path}: trained with `dropout: 0`, so that its passes agree; choose another --strategy")
    checkpoint = run.weights()
    weights = dict(apply_delta(base_weights(record), checkpoint)) if record.low_rank else checkpoint
    network = MultiTask(
        build_encoder(record.encoder, weights, dropout=rate),
        [_Head(spec.name, kind_of(spec), spec) for spec in specs],
        dropout=rate,
    )
    for name, head in zip(names, network.heads, strict=True):
        for part, parameter in head.named_parameters():
            parameter.data = torch.from_numpy(np.array(weights[f"heads.{name}.{part}"]))
    tokenizer = run.tokenizer()
    tokenizer.enable_truncation(record.max_tokens)
    return DropoutPasses(network, tokenizer, names.index(task), passes=passes, seed=seed)
