"""LoRA by PEFT (Hu et al. 2021: W + s * B @ A with s = alpha / rank), around the encoder and the layers of decoders.

A decoder's layers begin as layers of the encoder, so that W is a weight of the encoder there, too. The rest of the heads is ours.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...kinds.replies.decoder import ReplyDecoder
from ...recipe.keys.methods import Dora, Lora
from .method import ADAPTER, Arrays, Method, adapted

if TYPE_CHECKING:
    from transformers import BertModel

Factors = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
_FROZEN = ".base_layer.weight"


class LowRank(Method):
    """Factors beside linear layers."""

    def __init__(self, keys: Lora | Dora) -> None:
        self.keys = keys

    def attach(self, encoder: "BertModel") -> None:
        inject(self.keys, self.keys.rank, list(self.keys.targets), encoder)

    def arrays(self, encoder: "BertModel") -> Arrays:
        named = ((f"low_rank/{name}", pair) for name, pair in factors(encoder).items())
        return {f"{name}/{part}": array for name, pair in named for part, array in zip("ab", pair, strict=True)}

    def restore(self, encoder: "BertModel", arrays: Mapping[str, NDArray[Any]]) -> None:
        set_factors(
            encoder, {name: (arrays[f"low_rank/{name}/a"], arrays[f"low_rank/{name}/b"]) for name in factors(encoder)}
        )


class LoraMethod(LowRank):
    """LoRA, which decoders have, too."""

    keys: Lora

    def attach_to_decoder(self, decoder: ReplyDecoder) -> None:
        linear = r"layers\.\d+\.(self|cross|feed_forward)\.(query|key|value|output|up|down)"
        inject(self.keys, self.keys.decoder_rank, linear, decoder)
        for name, parameter in decoder.named_parameters():
            parameter.requires_grad_(not name.endswith(_FROZEN))


def inject(keys: Lora | Dora, rank: int, targets: list[str] | str, module: nn.Module) -> None:
    """Put factors of this rank beside linear layers, in place; everything else is frozen."""
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415  (takes seconds; training without factors needs none of it)

    alpha = rank * (keys.alpha / keys.rank if keys.alpha else 2)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=keys.dropout, target_modules=targets, use_dora=isinstance(keys, Dora)
    )
    inject_adapter_in_model(config, module)


def factors(module: nn.Module) -> Factors:
    """Return (a [r, in], b [out, r]) for each adapted weight; the scale is folded into b, so W = base + b @ a."""
    found: Factors = {}
    for name, part in adapted(module, "lora_A"):
        a = part.lora_A[ADAPTER].weight.detach().float().cpu().numpy().copy()
        b = part.lora_B[ADAPTER].weight.detach().float().cpu().numpy() * part.scaling[ADAPTER]
        found[f"{name}.weight"] = (a, b.astype(np.float32))
    return found


def set_factors(module: nn.Module, found: Factors) -> None:
    """Put back what `factors` returned."""
    for name, part in adapted(module, "lora_A"):
        a, b = (torch.from_numpy(array) for array in found[f"{name}.weight"])
        part.lora_A[ADAPTER].weight.data.copy_(a)
        part.lora_B[ADAPTER].weight.data.copy_(b / part.scaling[ADAPTER])


def own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters under the names that they have without LoRA, but for the weights that have factors."""
    for name, parameter in module.named_parameters():
        if not name.endswith(_FROZEN) and ".lora_" not in name:
            yield name.replace(".base_layer.", "."), parameter
