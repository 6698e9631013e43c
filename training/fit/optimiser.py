"""AdamW, its learning rates over the run, and the noise that is put on what is read."""

from collections.abc import Callable
from hashlib import sha256

import torch

from ..model.network import MultiTask
from ..model.special_tokens import SpecialTokens
from ..recipe.recipe import Recipe


def make_optimiser(recipe: Recipe, model: MultiTask) -> torch.optim.Optimizer:
    """Fused AdamW; no weight decay on biases and LayerNorm (all one-dimensional)."""
    encoder = [p for p in model.encoder.parameters() if p.requires_grad]
    heads = [p for p in model.heads.parameters() if p.requires_grad]
    groups = [
        {
            "name": name,
            "params": [p for p in found if (p.ndim > 1) is decays],
            "lr": rate,
            "full_lr": rate,
            "weight_decay": weight,
        }
        for name, found, rate in (("encoder", encoder, recipe.encoder_lr), ("heads", heads, recipe.optimiser.head_lr))
        for decays, weight in ((True, recipe.optimiser.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rates of the step to come: those of the recipe times the factor."""
    for group in optimiser.param_groups:
        group["lr"] = group["full_lr"] * factor


def rate_at(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """Return the factor on the learning rates by step: linear warm-up, then linear decay to zero or constant."""
    warm = max(1, int(recipe.optimiser.warmup * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 1.0 if recipe.optimiser.schedule == "constant" else max(0.0, (steps - step) / max(1, steps - warm))

    return factor


def seed_step(seed: int, step: int, process: int) -> None:
    """Begin the random numbers of a step: they follow from seed, step and process, so that no state of them is kept."""
    number = int.from_bytes(sha256(f"{seed} {step} {process}".encode()).digest()[:4], "big")
    torch.default_generator.manual_seed(number)  # `torch.manual_seed` also writes to every other device: 0.2 ms
    if torch.cuda.is_available():
        torch.cuda.manual_seed(number)


def drop_words(ids: torch.Tensor, share: float, special: SpecialTokens) -> torch.Tensor:
    """Read a share of the tokens as unknown, so that no single word decides (special tokens stay)."""
    if share == 0:
        return ids
    assert special.unknown is not None, "refused before the first step"
    kept = torch.isin(ids, torch.tensor(sorted(special.kept), device=ids.device))
    return torch.where((torch.rand(ids.shape, device=ids.device) < share) & ~kept, special.unknown, ids)
