"""The optimiser of a joint training, and the noise that is put on what is read."""

import torch

from ...compute.optimiser import Group, make_torch_optimiser
from ...model.network import MultiTask
from ...model.special_tokens import SpecialTokens
from ...recipe.recipe import Recipe
from ..weights.weighting import Weighting


def make_optimiser(recipe: Recipe, model: MultiTask, weighting: Weighting) -> torch.optim.Optimizer:
    """The recipe's optimiser with its rates for encoder and heads, and the method's own for what it learns to weigh the tasks."""
    groups = (
        *_encoder_groups(recipe, model),
        ("heads", model.heads.parameters(), recipe.optimiser.head_lr),
        ("weights", weighting.parameters().values(), weighting.lr),
    )
    return make_torch_optimiser(groups, recipe.optimiser.weight_decay, recipe.optimiser.method)


def _encoder_groups(recipe: Recipe, model: MultiTask) -> list[Group]:
    """Return the encoder as one group, or a group a layer where rates differ (Howard and Ruder 2018): the last has the recipe's."""
    decay, rate = recipe.optimiser.layer_decay, recipe.encoder_lr
    if decay == 1:
        return [("encoder", model.encoder.parameters(), rate)]
    parts = encoder_parts(model)
    names = ["embeddings", *(f"layer.{at}" for at in range(len(parts) - 2)), ""]
    below = range(len(parts) - 1, -1, -1)
    return [
        (f"encoder.{name}" if name else "encoder", part, rate * decay**depth)
        for name, part, depth in zip(names, parts, below, strict=True)
    ]


def encoder_parts(model: MultiTask) -> list[list[torch.nn.Parameter]]:
    """Return the parameters of the embeddings and of each layer; those of no layer belong to the last one."""
    encoder = model.encoder
    parts = [[*module.parameters()] for module in (encoder.embeddings, *encoder.encoder.layer)]
    listed = {id(p) for part in parts for p in part}
    parts[-1] += [p for p in encoder.parameters() if id(p) not in listed]
    return parts


def drop_words(ids: torch.Tensor, share: float, special: SpecialTokens) -> torch.Tensor:
    """Read a share of the tokens as unknown, so that no single word decides (special tokens stay)."""
    if share == 0:
        return ids
    assert special.unknown is not None, "refused before the first step"
    kept = torch.isin(ids, torch.tensor(sorted(special.kept), device=ids.device))
    return torch.where((torch.rand(ids.shape, device=ids.device) < share) & ~kept, special.unknown, ids)
