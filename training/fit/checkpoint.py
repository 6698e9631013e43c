"""From the network to the arrays of a run folder, and back."""

from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from ...runtime.model.deltas.delta import ADDED
from ..kinds.replies.decoder import ReplyDecoder
from ..model.methods.lora import factors, own_parameters, set_factors
from ..model.methods.method import to_numpy
from ..model.network import MultiTask


def checkpoint_weights(model: MultiTask, *, low_rank: bool) -> dict[str, NDArray[Any]]:
    """Return what a run folder keeps: heads, and either the encoder's weights or what a method trained around them."""
    weights: dict[str, NDArray[Any]] = dict(model.head_weights())
    if low_rank:
        for module, names in _adapted_decoders(model):
            for own, (a, b) in factors(module).items():
                weights |= {f"{names[own]}/a": a, f"{names[own]}/b": b}
        weights |= model.method.arrays(model.encoder) if model.method is not None else {}
        if model.has_new_template:
            weights[f"{ADDED}embeddings.virtual"] = to_numpy(model.encoder.embeddings.virtual)
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
        for part, parameter in own_parameters(head):
            parameter.data.copy_(weights[f"heads.{name}.{part}"])
    if not low_rank:
        encoder = {name: array for name, array in weights.items() if not name.startswith("heads.")}
        model.encoder.load_state_dict(encoder, strict=False)
        return
    for module, names in _adapted_decoders(model):
        set_factors(module, {own: (arrays[f"{name}/a"], arrays[f"{name}/b"]) for own, name in names.items()})
    if model.method is not None:
        model.method.restore(model.encoder, arrays)


def _adapted_decoders(model: MultiTask) -> Iterator[tuple[nn.Module, dict[str, str]]]:
    """Yield each decoder, which may have factors, and how its weights with factors are called in deltas."""
    depth = model.encoder.config.num_hidden_layers
    for task, head in zip(model.names, model.heads, strict=True):
        if isinstance(head, ReplyDecoder):
            adapted = [*factors(head)]
            sources = head.sources(depth) if adapted else {}  # one that goes on may have more layers than the encoder
            yield head, {name: f"derived/heads.{task}.{name}/{sources[name]}" for name in adapted}
