"""Soft targets: what a model answered before, as something to learn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..kinds.registry import Kind
from ..recipe.recipe import Hold

NEVER: Final = -1e4
"""A logit that no softmax gives any share, and that makes no NaN of 0 * inf."""


@dataclass(frozen=True, slots=True)
class Held:
    """One text as it was answered: logits [C] (tagging: [S, C]), and which labels are compared [C]."""

    logits: NDArray[np.float32]
    compared: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """The rows of a batch that have soft targets [B], their logits [K, C] or [K, S, C], and the compared labels [K, C]."""

    rows: Tensor
    before: Tensor
    compared: Tensor

    def to(self, device: str) -> "SoftTargets":
        return SoftTargets(self.rows.to(device), self.before.to(device), self.compared.to(device))


def soft_targets(held: Sequence[Held | None], width: int) -> SoftTargets | None:
    """Stack what a batch of `width` tokens has of soft targets; None when it has none."""
    there = [each for each in held if each is not None]
    if not there:
        return None
    before = [each.logits if each.logits.ndim == 1 else _widened(each.logits, width) for each in there]
    return SoftTargets(
        torch.tensor([each is not None for each in held]),
        torch.from_numpy(np.stack(before)),
        torch.from_numpy(np.stack([each.compared for each in there])),
    )


def _widened(logits: NDArray[Any], width: int) -> NDArray[Any]:
    return np.pad(logits, ((0, width - len(logits)), (0, 0)))


def mixed_loss(kind: Kind, logits: Tensor, target: Tensor, soft: SoftTargets, hold: Hold, smoothing: float) -> Tensor:
    """Return the mean over a batch's rows of the loss of their label, or of their soft target."""
    share = soft.rows.float().mean()
    now, compared = logits[soft.rows], soft.compared
    before = soft.before
    if kind.per_token:
        asked = kind.asked(target[soft.rows])
        compared = compared.unsqueeze(1).expand(-1, now.shape[1], -1)[asked]
        now, before = now[asked], before[asked]
    held = _kept(now, before, compared, hold.temperature, one_of=not kind.several)
    loss = hold.weight * share * held
    if not bool(soft.rows.all()):
        loss = loss + (1 - share) * kind.loss(logits[~soft.rows], target[~soft.rows], smoothing)
    return loss


def _kept(now: Tensor, before: Tensor, compared: Tensor, temperature: float, *, one_of: bool) -> Tensor:
    """Distance between two answers, mean over rows, 0 for none; all [N, C]."""
    if not len(now):  # texts without words
        return now.sum() * 0.0
    if not one_of:
        each = F.binary_cross_entropy_with_logits(now, torch.sigmoid(before), reduction="none")
        return (each * compared).sum(-1).mean()
    was = F.log_softmax(torch.where(compared, before / temperature, NEVER), -1)
    is_ = F.log_softmax(torch.where(compared, now / temperature, NEVER), -1)
    return temperature**2 * (was.exp() * (was - is_)).sum(-1).mean()
