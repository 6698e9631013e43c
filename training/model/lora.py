"""LoRA around the encoder, by PEFT (Hu et al. 2021: W + s * B @ A with s = alpha / rank). The heads stay ours."""

import numpy as np
from numpy.typing import NDArray
from peft import LoraConfig, inject_adapter_in_model
from transformers import BertModel

from ..recipe.recipe import Lora

Factors = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def add_lora(encoder: BertModel, lora: Lora) -> None:
    """Put factors beside the encoder's linear layers, in place; everything else in it is frozen."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha or 2 * lora.rank,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
    )
    inject_adapter_in_model(config, encoder)


def factors(encoder: BertModel) -> Factors:
    """Return (a [r, in], b [out, r]) for each adapted weight; the scale is folded into b, so W = base + b @ a."""
    found: Factors = {}
    for name, module in encoder.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        a = module.lora_A["default"].weight.detach().float().cpu().numpy().copy()
        b = module.lora_B["default"].weight.detach().float().cpu().numpy() * module.scaling["default"]
        found[f"{name}.weight"] = (a, b.astype(np.float32))
    return found
