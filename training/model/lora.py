"""LoRA by PEFT (Hu et al. 2021: W + s * B @ A with s = alpha / rank), around the encoder and the layers of decoders.

A decoder's layers begin as layers of the encoder, so that W is a weight of the encoder there, too. The rest of the heads is ours.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..kinds.reply_decoder import ReplyDecoder
from ..recipe.recipe import Lora

if TYPE_CHECKING:
    from transformers import BertModel

Factors = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
_FROZEN = ".base_layer.weight"


def add_lora(encoder: "BertModel", lora: Lora) -> None:
    """Put factors beside the encoder's linear layers, in place; everything else in it is frozen."""
    _inject(lora, lora.rank, list(lora.targets), encoder)


def add_decoder_lora(decoder: ReplyDecoder, lora: Lora) -> None:
    """Put factors beside the linear layers of a decoder's layers, in place. Only the weights of these are frozen."""
    linear = r"layers\.\d+\.(self|cross|feed_forward)\.(query|key|value|output|up|down)"
    _inject(lora, lora.decoder_rank, linear, decoder)
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(not name.endswith(_FROZEN))


def _inject(lora: Lora, rank: int, targets: list[str] | str, module: nn.Module) -> None:
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415  (takes seconds; training without factors needs none of it)

    alpha = rank * (lora.alpha / lora.rank if lora.alpha else 2)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=targets)
    inject_adapter_in_model(config, module)


def factors(module: nn.Module) -> Factors:
    """Return (a [r, in], b [out, r]) for each adapted weight; the scale is folded into b, so W = base + b @ a."""
    found: Factors = {}
    for name, part in _adapted(module):
        a = part.lora_A["default"].weight.detach().float().cpu().numpy().copy()
        b = part.lora_B["default"].weight.detach().float().cpu().numpy() * part.scaling["default"]
        found[f"{name}.weight"] = (a, b.astype(np.float32))
    return found


def set_factors(module: nn.Module, found: Factors) -> None:
    """Put back what `factors` returned."""
    for name, part in _adapted(module):
        a, b = (torch.from_numpy(array) for array in found[f"{name}.weight"])
        part.lora_A["default"].weight.data.copy_(a)
        part.lora_B["default"].weight.data.copy_(b / part.scaling["default"])


def own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters under the names that they have without LoRA, but for the weights that have factors."""
    for name, parameter in module.named_parameters():
        if not name.endswith(_FROZEN) and ".lora_" not in name:
            yield name.replace(".base_layer.", "."), parameter


def _adapted(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, part) for name, part in module.named_modules() if hasattr(part, "lora_A"))
