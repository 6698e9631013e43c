"""The methods around an encoder, of sizes that suit a tiny one."""

from pathlib import Path
from typing import Any

import torch
from tiny_training import RECIPE

from murmura.training.model.encoders import build_encoder, load
from murmura.training.model.methods.make import make_method
from murmura.training.model.methods.method import Method
from murmura.training.recipe.recipe import Recipe

METHODS: dict[str, Any] = {
    "lora": {"name": "lora", "rank": 4},
    "dora": {"name": "dora", "rank": 4},
    "adalora": {"name": "adalora", "rank": 2, "start_rank": 4, "every": 1},
    "ia3": {"name": "ia3"},
    "bottleneck": {"name": "bottleneck", "width": 8},
    "prefix": {"name": "prefix", "tokens": 3},
    "prompt": {"name": "prompt", "tokens": 3},
    "p_tuning": {"name": "p_tuning", "tokens": 3},
}
BEGIN_ELSEWHERE = ("prefix", "prompt", "p_tuning")
"""Their tokens begin as words that stand before the text."""
IDS = torch.tensor([[2, 11, 12, 13, 3], [2, 14, 3, 0, 0]])
MASK = (IDS != 0).long()


def attached(base: Path, method: Any) -> tuple[Any, Method]:
    """Return the tiny encoder with a method of this key of a recipe, and the method."""
    keys = Recipe.model_validate({"method": method, "tasks": RECIPE["tasks"]}).around_encoder
    assert keys is not None
    found = load(str(base))
    encoder, made = build_encoder(found.spec, found.weights, dropout=0.0), make_method(keys)
    made.attach(encoder)
    return encoder.eval(), made


def disturb(encoder: Any) -> None:
    """Change everything that is trained."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
