"""Rows that count unlike in the loss of a task: by their label, or by how sure the model is."""

from collections.abc import Sequence

import torch
from torch import Tensor


def row_weights(logits: Tensor, target: Tensor, by_label: Sequence[float] | None, gamma: float | None) -> Tensor:
    """Return the weight [B] of each row with logits [B, C] and a label [B].

    With `gamma` that of focal loss (Lin et al. 2017): (1 - p) ** gamma for the probability p of the row's label.
    """
    weights = torch.ones(len(target), device=logits.device)
    if by_label is not None:
        weights = torch.tensor(by_label, device=logits.device)[target]
    if gamma is not None:
        sure = torch.softmax(logits, -1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
        weights = weights * (1 - sure).clamp_min(1e-6) ** gamma
    return weights
