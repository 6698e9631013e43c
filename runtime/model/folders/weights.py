"""Names and shapes of the weights of a multitask BERT, by the sizes in the manifest."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from ....schemas.manifest import POOLED, EncoderSpec, TaskSpec
from ...errors import ModelRefused
from ..kinds.registry import kind_of

Weights = Mapping[str, npt.NDArray[Any]]


def weight_shapes(
    encoder: EncoderSpec, tasks: Sequence[TaskSpec], pooled_layers: Sequence[int] = ()
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights of the graph, by their names in BERT checkpoints."""
    hidden, inner = encoder.hidden_size, encoder.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (encoder.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (encoder.max_positions, hidden),
    }

    def pair(name: str, *shape: int) -> None:
        shapes[name + ".weight"], shapes[name + ".bias"] = shape, shape[:1]

    if encoder.virtual_tokens is not None:
        shapes["embeddings.virtual"] = (encoder.virtual_tokens, hidden)
    pair("embeddings.LayerNorm", hidden)
    for i in range(encoder.layers):
        layer = f"encoder.layer.{i}."
        for part in ("query", "key", "value"):
            pair(f"{layer}attention.self.{part}", hidden, hidden)
        pair(layer + "attention.output.dense", hidden, hidden)
        pair(layer + "attention.output.LayerNorm", hidden)
        pair(layer + "intermediate.dense", inner, hidden)
        pair(layer + "output.dense", hidden, inner)
        pair(layer + "output.LayerNorm", hidden)
        if encoder.bottleneck is not None:
            for part in ("attention.output.dense", "output.dense"):
                pair(f"{layer}{part}.adapter.down", encoder.bottleneck, hidden)
                pair(f"{layer}{part}.adapter.up", hidden, encoder.bottleneck)
        if encoder.prefix is not None:
            names = (f"{layer}attention.self.prefix_{part}" for part in ("key", "value"))
            shapes |= dict.fromkeys(names, (encoder.prefix, hidden))
    for task in tasks:
        shapes |= {
            f"heads.{task.name}.{name}": shape for name, shape in kind_of(task).head_shapes(task, encoder).items()
        }
    if pooled_layers:
        pair(f"heads.{POOLED}", hidden, hidden * len(pooled_layers))
    return shapes


def check_weights(
    encoder: EncoderSpec, tasks: Sequence[TaskSpec], weights: Weights, pooled_layers: Sequence[int] = ()
) -> None:
    """Raise ModelRefused when a weight is missing or its shape differs from the manifest. Other weights are ignored."""
    for name, shape in weight_shapes(encoder, tasks, pooled_layers).items():
        if name not in weights:
            raise ModelRefused(f"weight {name} is missing; is this a BERT checkpoint with the manifest's sizes?")
        if weights[name].shape != shape:
            raise ModelRefused(f"weight {name} has shape {weights[name].shape}, the manifest asks for {shape}")
    types = weights.get("embeddings.token_type_embeddings.weight")
    if types is not None and (types.ndim != 2 or types.shape[1] != encoder.hidden_size):
        raise ModelRefused(f"weight embeddings.token_type_embeddings.weight has shape {types.shape}")
