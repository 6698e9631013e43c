"""The optimiser of a joint training, and the noise that is put on what is read."""

import torch

from ..compute.optimiser import make_adamw
from ..model.network import MultiTask
from ..model.special_tokens import SpecialTokens
from ..recipe.recipe import Recipe
from .weights.weighting import Weighting


def make_optimiser(recipe: Recipe, model: MultiTask, weighting: Weighting) -> torch.optim.Optimizer:
    """AdamW with the recipe's rates for encoder and heads, and the method's own for what it learns to weigh the tasks."""
    groups = (
        ("encoder", model.encoder.parameters(), recipe.encoder_lr),
        ("heads", model.heads.parameters(), recipe.optimiser.head_lr),
        ("weights", weighting.parameters().values(), weighting.lr),
    )
    return make_adamw(groups, recipe.optimiser.weight_decay)


def drop_words(ids: torch.Tensor, share: float, special: SpecialTokens) -> torch.Tensor:
    """Read a share of the tokens as unknown, so that no single word decides (special tokens stay)."""
    if share == 0:
        return ids
    assert special.unknown is not None, "refused before the first step"
    kept = torch.isin(ids, torch.tensor(sorted(special.kept), device=ids.device))
    return torch.where((torch.rand(ids.shape, device=ids.device) < share) & ~kept, special.unknown, ids)
