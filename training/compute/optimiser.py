"""The optimiser, its learning rates over the run, and the random numbers of a step."""

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Final

import torch

from ..model.methods.method import is_without_decay
from ..recipe.recipe import Recipe

MOMENTUM: Final = 0.9
Group = tuple[str, Iterable[torch.nn.Parameter], float]
"""Name, parameters and learning rate."""


def make_torch_optimiser(groups: Iterable[Group], weight_decay: float, method: str = "adamw") -> torch.optim.Optimizer:
    """AdamW (fused), Adafactor or SGD over the parameters that are trained; no weight decay on biases and LayerNorm (all
    one-dimensional), nor on those that are `without_decay`.
    """
    made = [
        {
            "name": name,
            "params": [p for p in trained if (p.ndim > 1 and not is_without_decay(p)) is decays],
            "lr": rate,
            "full_lr": rate,
            "weight_decay": weight,
        }
        for name, trained, rate in ((name, [p for p in all_ if p.requires_grad], rate) for name, all_, rate in groups)
        for decays, weight in ((True, weight_decay), (False, 0.0))
    ]
    made = [group for group in made if group["params"]]
    if method == "adafactor":
        return torch.optim.Adafactor(made)
    return torch.optim.SGD(made, momentum=MOMENTUM) if method == "sgd" else torch.optim.AdamW(made, fused=True)


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


def seed_step(seed: int, step: int, process: int) -> int:
    """Begin the random numbers of a step, and return the number that they begin from: they follow from seed, step and
    process, so that no state of them is kept.
    """
    number = int.from_bytes(sha256(f"{seed} {step} {process}".encode()).digest()[:4], "big")
    torch.default_generator.manual_seed(number)  # `torch.manual_seed` also writes to every other device: 0.2 ms
    if torch.cuda.is_available():
        torch.cuda.manual_seed(number)
    return number
