"""AdaLoRA by PEFT (Zhang et al. 2023): W + s * B @ diag(E) @ A, where the least important entries of E become zero.

An entry is important when the loss reacts to it and to its row of A and column of B: the smoothed product of weight and
gradient, times how uncertain that is. The number of entries falls to `rank` for each weight on average, by a cubic schedule, so
that weights where the task needs a change keep more of them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor

from ...recipe.keys.methods import AdaLora
from .method import ADAPTER, Arrays, Method, adapted, to_numpy

if TYPE_CHECKING:
    from transformers import BertModel

_AVERAGES: Final = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What PEFT holds of each parameter: importance, its average, and that of its uncertainty."""
_TINY: Final = 1e-5
"""PEFT adds it to the rank that it divides by."""


class AdaLoraMethod(Method):
    """Factors beside linear layers, of which each loses what it needs least."""

    def __init__(self, keys: AdaLora) -> None:
        self.keys = keys
        self._peft: Any = None

    def attach(self, encoder: "BertModel") -> None:
        from peft import AdaLoraConfig  # noqa: PLC0415  (takes seconds)
        from peft.tuners.adalora import AdaLoraModel  # noqa: PLC0415

        keys = self.keys
        config = AdaLoraConfig(
            target_r=keys.rank,
            init_r=keys.start_rank,
            lora_alpha=keys.alpha or 2 * keys.start_rank,
            lora_dropout=keys.dropout,
            target_modules=list(keys.targets),
            deltaT=keys.every,
            total_step=1,
        )
        self._peft = AdaLoraModel(encoder, config, ADAPTER)

    def begin(self, steps: int) -> None:
        config, keys = self._config, self.keys
        config.total_step, config.tinit = steps, int(keys.warmup * steps)
        config.tfinal = min(int(keys.settled * steps), steps - config.tinit - 1)

    def penalty(self) -> Tensor | None:
        """Return the mean distance of A @ A.T and B.T @ B from the unit matrix, times its weight."""
        if not self.keys.orthogonal:
            return None
        parts = [part for _, part in adapted(self._peft.model, "lora_E")]
        products = [a @ a.T for a in (part.lora_A[ADAPTER] for part in parts)]
        products += [b.T @ b for b in (part.lora_B[ADAPTER] for part in parts)]
        unit = torch.eye(self.keys.start_rank, device=products[0].device)
        return self.keys.orthogonal * torch.stack([torch.norm(each - unit) for each in products]).mean()

    def after_step(self, step: int) -> None:
        self._forget_skipped()
        self._peft.update_and_allocate(step)

    def _forget_skipped(self) -> None:
        """Set all gradients to zero where one is not finite: the optimiser has left out the step (fp16), and the averages would
        never be finite again.
        """
        found = [p.grad for p in self._peft.model.parameters() if p.requires_grad and p.grad is not None]
        if not all(bool(each.isfinite().all()) for each in found):
            for each in found:
                each.zero_()

    def arrays(self, encoder: "BertModel") -> Arrays:
        """Return the entries that are left, E and the scale folded into b; a weight without one has none."""
        found: Arrays = {}
        for name, part in adapted(encoder, "lora_E"):
            e = to_numpy(part.lora_E[ADAPTER])
            left = e[:, 0] != 0
            scale = part.scaling[ADAPTER] / (float(part.ranknum[ADAPTER]) + _TINY)
            if left.any():
                found[f"low_rank/{name}.weight/a"] = to_numpy(part.lora_A[ADAPTER])[left]
                found[f"low_rank/{name}.weight/b"] = to_numpy(part.lora_B[ADAPTER])[:, left] * e[left].T * scale
        return found

    def restore(self, encoder: "BertModel", arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put back factors with the same product; what was lost is zero."""
        for name, part in adapted(encoder, "lora_E"):
            a, b, e = part.lora_A[ADAPTER], part.lora_B[ADAPTER], part.lora_E[ADAPTER]
            with torch.no_grad():
                e.zero_()
                if f"low_rank/{name}.weight/a" not in arrays:
                    continue
                kept = [torch.from_numpy(arrays[f"low_rank/{name}.weight/{end}"]) for end in "ab"]
                rank, scale = len(kept[0]), part.scaling[ADAPTER] / (float(part.ranknum[ADAPTER]) + _TINY)
                a[:rank], b[:, :rank], e[:rank] = kept[0], kept[1] / scale, 1

    @property
    def _config(self) -> Any:
        return self._peft.peft_config[ADAPTER]

    def state_dict(self) -> dict[str, Any]:
        """Return which entries are left, by parameter; empty before the first was lost."""
        return {"pattern": self._config.rank_pattern} if self._config.rank_pattern else {}

    def tensors(self) -> dict[str, Tensor]:
        held = {kind: getattr(self._peft.rankallocator, kind) for kind in _AVERAGES}
        return {f"{kind}/{name}": each for kind, own in held.items() for name, each in own.items()}

    def load_state(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self._config.rank_pattern = state.get("pattern")
        device = next(self._peft.model.parameters()).device
        for kind in _AVERAGES:
            own = {name.removeprefix(f"{kind}/"): each for name, each in tensors.items() if name.startswith(f"{kind}/")}
            setattr(self._peft.rankallocator, kind, {name: each.to(device) for name, each in own.items()})
