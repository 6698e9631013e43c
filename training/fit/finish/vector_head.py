"""Vectors of texts that stay as they were before the training: a linear map from the layers of the trained encoder.

An encoder that learns labels puts texts of one label together and forgets what else they say; its layers still hold most of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ....runtime.model.vectors import unit_vectors
from ....schemas.manifest import POOLED
from ...compute.failures import memory_of
from ...model.encoders import Checkpoint, build_encoder
from ...model.padding import in_order, pad
from ...model.vector_map import map_means
from ...run_folders.run_folder import RunRecord, Weights
from ..setup import Fitting

if TYPE_CHECKING:
    from transformers import BertModel

MOST_TEXTS: Final = 3000
"""At most so many training texts are read, drawn from all of them."""
PENALTIES: Final = (30.0, 100.0, 300.0, 1000.0)
"""Of ridge regression on features of spread one: the best on a held-out tenth is taken."""
Floats = NDArray[np.float32]
Texts = Sequence[NDArray[np.integer[Any]]]


@dataclass(frozen=True)
class VectorHead:
    """The map from the means of `layers` to a vector: weight [H, H * layers], bias [H]."""

    layers: list[int]
    weight: Floats
    bias: Floats
    similarity: float
    """Mean cosine between vectors before and after, on texts that were held out."""

    @property
    def weights(self) -> Weights:
        return {f"heads.{POOLED}.weight": self.weight, f"heads.{POOLED}.bias": self.bias}


def distil_vectors(
    run: Fitting, record: RunRecord, weights: Weights | None, write: Callable[[str], Any]
) -> tuple[RunRecord, Weights | None]:
    """Return both with a map to the vectors that the model at the beginning gave, where the recipe asks for it.

    Without weights those of the run's folder are meant. A frozen encoder gives its vectors as before.
    """
    if run.recipe.pooled != "distilled" or run.recipe.encoder.frozen:
        return record, weights
    texts = [part.ids for part, data in zip(run.train, run.tasks, strict=True) if not data.kind.generates]
    head = fit_vector_head(
        run.model.encoder,
        run.checkpoint,
        list(chain.from_iterable(texts)),
        seed=run.recipe.data_seed,
        device=run.device,
    )
    write(f"vectors: cosine {head.similarity:.3f} to those before the training, on texts held out")
    kept = run.folder.weights() if weights is None else weights
    return record.model_copy(update={"pooled_layers": head.layers}), kept | head.weights


@memory_of("vectors as before the training")
def fit_vector_head(encoder: "BertModel", before: Checkpoint, texts: Texts, *, seed: int, device: str) -> VectorHead:
    """Fit the map by ridge regression on texts (token ids), from the middle and the last layer.

    Vectors before are those of the model at the beginning, if it has such a map; else of a delta's base; else of the encoder.
    """
    chosen = _draw(texts, seed)
    depth = before.spec.layers
    layers = [depth // 2, depth]
    target = _vectors_before(before, chosen, device)
    means = np.concatenate(_means(encoder, chosen, layers, device), axis=1).astype(np.float64)
    centre, scale = means.mean(0), max(float(means.std(0).mean()), 1e-12)
    features, middle = (means - centre) / scale, target.mean(0)
    held_out = np.arange(len(chosen)) % 10 == 0 if len(chosen) >= 10 else np.ones(len(chosen), bool)
    learned = ~held_out if len(chosen) >= 10 else held_out

    def solve(rows: NDArray[np.bool_], penalty: float) -> NDArray[np.float64]:
        read = features[rows]
        solved: NDArray[np.float64] = np.linalg.solve(
            read.T @ read + penalty * np.eye(read.shape[1]), read.T @ (target[rows] - middle)
        )
        return solved

    def similarity(penalty: float) -> float:
        found = features[held_out] @ solve(learned, penalty) + middle
        return float((unit_vectors(found) * target[held_out]).sum(1).mean())

    reached, penalty = max((similarity(penalty), penalty) for penalty in PENALTIES)
    solution = solve(np.ones(len(chosen), bool), penalty) / scale
    bias = middle - centre @ solution
    return VectorHead(layers, solution.T.astype(np.float32), bias.astype(np.float32), reached)


def _draw(texts: Texts, seed: int) -> Texts:
    """Return at most MOST_TEXTS different texts."""
    different = list({ids.tobytes(): ids for ids in texts}.values())
    order = np.random.default_rng(seed).permutation(len(different))[:MOST_TEXTS]
    return [different[at] for at in order]


def _vectors_before(before: Checkpoint, texts: Texts, device: str) -> Floats:
    manifest = before.manifest
    layers = list(manifest.pooled_layers) if manifest else []
    source = before.weights if layers or before.base is None else before.base
    encoder = build_encoder(before.spec, source, dropout=0.0).to(device)
    means = _means(encoder, texts, layers or [before.spec.layers], device)
    return unit_vectors(map_means(means, before.weights) if layers else means[0])


def _means(encoder: "BertModel", texts: Texts, layers: Sequence[int], device: str) -> list[Floats]:
    """Return the mean [N, H] over each text's tokens of the states of each layer; 0 is the embeddings."""
    was_training = encoder.training
    encoder.eval()
    found = np.empty((len(layers), len(texts), encoder.config.hidden_size), np.float32)
    for rows in in_order(texts, 64):
        ids, mask = (each.to(device) for each in pad([texts[row] for row in rows]))
        with torch.no_grad():
            states = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        counted = mask.unsqueeze(-1).float()
        for at, layer in enumerate(layers):
            found[at, rows] = ((states[layer] * counted).sum(1) / counted.sum(1)).float().cpu().numpy()
    encoder.train(was_training)
    return list(found)
