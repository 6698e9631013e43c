"""From the network to the arrays of a run folder, and back."""

from typing import Any

import torch
from numpy.typing import NDArray

from ..model.lora import factors
from ..model.network import MultiTask


def checkpoint_weights(model: MultiTask, *, low_rank: bool) -> dict[str, NDArray[Any]]:
    """Return what a run folder keeps: heads, and either the encoder's weights or its low-rank factors."""
    weights: dict[str, NDArray[Any]] = dict(model.head_weights())
    if low_rank:
        for name, (a, b) in factors(model.encoder).items():
            weights |= {f"low_rank/{name}/a": a, f"low_rank/{name}/b": b}
        return weights
    encoder = {name: p.detach().float().cpu().numpy() for name, p in model.encoder.named_parameters()}
    if model.table is not None:
        encoder["embeddings.word_embeddings.weight"] = model.table.whole(model.encoder).numpy()
    return weights | encoder


def restore(model: MultiTask, arrays: dict[str, NDArray[Any]], *, low_rank: bool) -> None:
    """Put the best checkpoint back into the network, for calibration."""
    model.widen()
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for name, head in zip(model.names, model.heads, strict=True):
        head.load_state_dict(
            {part: weights[f"heads.{name}.{part}"] for part, _ in head.named_parameters()}, strict=False
        )
    if not low_rank:
        encoder = {name: array for name, array in weights.items() if not name.startswith("heads.")}
        model.encoder.load_state_dict(encoder, strict=False)
        return
    for name, module in model.encoder.named_modules():
        if hasattr(module, "lora_A"):
            module.lora_A["default"].weight.data.copy_(weights[f"low_rank/{name}.weight/a"])
            module.lora_B["default"].weight.data.copy_(weights[f"low_rank/{name}.weight/b"] / module.scaling["default"])
