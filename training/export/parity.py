"""What torch computes for a model's weights, to hold the exported graphs against."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ...schemas.manifest import ModelManifest, TaskSpec
from ..model.encoders import build_encoder

Array = NDArray[Any]
TIE: Final = 1e-5
"""Logits so close are equal but for the order of additions; which of them wins is no decision of the model's."""


def torch_logits(
    manifest: ModelManifest, weights: dict[str, Array], texts: Sequence[Sequence[int]]
) -> dict[str, list[Array]]:
    """Return each task's logits for each text (token ids), one text at a time in fp32: no padding, nothing to mask."""
    encoder = build_encoder(manifest.encoder, weights, dropout=0.0).eval()
    found: dict[str, list[Array]] = {spec.name: [] for spec in manifest.tasks}
    for ids in texts:
        with torch.no_grad():
            states = encoder(input_ids=torch.tensor([list(ids)])).last_hidden_state[0].numpy()
        for spec in manifest.tasks:
            read = states if spec.kind == "tagging" else states.mean(0)
            found[spec.name].append(read @ weights[f"heads.{spec.name}.weight"].T + weights[f"heads.{spec.name}.bias"])
    return found


def worst_difference(truth: Sequence[Array], found: Sequence[Array], spec: TaskSpec) -> tuple[float, bool]:
    """Return the largest difference of a logit, and whether all decisions are the same, ties within TIE apart."""
    gap = max(float(np.abs(a - b).max()) for a, b in zip(truth, found, strict=True))
    return gap, all(_same(a, b, spec.kind) for a, b in zip(truth, found, strict=True))


def _same(a: Array, b: Array, kind: str) -> bool:
    if kind == "multi_label":
        return bool(((a > 0) == (b > 0))[np.abs(a) > TIE].all())
    best = np.partition(a, -2, axis=-1)
    clear = best[..., -1] - best[..., -2] > TIE
    return bool(((a.argmax(-1) == b.argmax(-1)) | ~clear).all())
