"""What torch computes for a model's weights, to hold the exported graphs against."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...runtime.model.vectors import unit_vectors
from ...schemas.manifest import POOLED, ModelManifest, TaskSpec
from ..kinds.heads import FormedHead
from ..kinds.registry import kind_of
from ..model.encoders import build_encoder
from ..model.vector_map import map_means

if TYPE_CHECKING:
    from transformers import BertConfig

Array = NDArray[Any]


def torch_logits(
    manifest: ModelManifest, weights: dict[str, Array], texts: Sequence[Sequence[int]]
) -> dict[str, list[Array]]:
    """Return each task's logits for each text (token ids), one text at a time in fp32: no padding, nothing to mask.

    Where the model has the pooled output, `pooled` has a unit vector for each text.
    """
    encoder = build_encoder(manifest.encoder, weights, dropout=0.0).eval()
    tasks = [spec for spec in manifest.tasks if not kind_of(spec).generates]
    heads = {spec.name: build_head(spec, encoder.config, weights) for spec in tasks}
    found: dict[str, list[Array]] = {spec.name: [] for spec in tasks}
    if manifest.pooled:
        found[POOLED] = []
    for ids in texts:
        with torch.no_grad():
            encoded = encoder(input_ids=torch.tensor([list(ids)]), output_hidden_states=True)
            states = encoded.last_hidden_state[0]
            for spec in tasks:
                head = heads[spec.name]
                read = states if kind_of(spec).per_token else states.mean(0)
                if isinstance(head, FormedHead):
                    last, layers, mask = encoded.last_hidden_state, encoded.hidden_states, torch.ones(1, len(ids))
                    by_token = kind_of(spec).per_token
                    read = head.read(
                        head.stack(last, layers) if by_token else head.pool(last, mask, layers, encoded.pooler_output)
                    )[0]
                found[spec.name].append(head(read).numpy())
            if manifest.pooled:
                means = [encoded.hidden_states[layer][0].mean(0).numpy() for layer in manifest.pooled_layers]
                vector = map_means(means, weights) if means else states.mean(0).numpy()
                found[POOLED].append(unit_vectors(vector[None])[0])
    return found


def build_head(spec: TaskSpec, config: "BertConfig", weights: dict[str, Array]) -> nn.Module:
    """Return the head of a task with its weights."""
    head = kind_of(spec).make_head(config, spec).eval()
    for name, parameter in head.named_parameters():
        parameter.data = torch.from_numpy(np.array(weights[f"heads.{spec.name}.{name}"]))
    return head


def worst_difference(truth: Sequence[Array], found: Sequence[Array], spec: TaskSpec) -> tuple[float, bool]:
    """Return the largest difference of a logit, and whether all decisions are the same, ties within TIE apart."""
    gap = max(float(np.abs(a - b).max()) for a, b in zip(truth, found, strict=True))
    return gap, all(kind_of(spec).decide_alike(a, b) for a, b in zip(truth, found, strict=True))
