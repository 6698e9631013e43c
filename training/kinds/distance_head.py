"""A linear head whose out-of-scope label is not learned: a text is out of scope that lies far from all labels."""

from typing import Final

import torch
from torch import Tensor, nn

from .heads import draw

NEVER: Final = -1e4
"""The limit before one is chosen: nothing is out of scope."""


class DistanceHead(nn.Linear):  # type: ignore[misc]  # torch is untyped here
    """`centres` [C, W]: for each label the direction in which its texts lie, of length 1; that of the out-of-scope label counts
    nothing. `limits` [2]: scale and limit, see `schemas.manifest.HeadForm.distance`. Neither is learned by steps.
    """

    def __init__(self, width: int, labels: int, outside: int) -> None:
        super().__init__(width, labels)
        draw(self)
        self.outside = outside
        self.centres = nn.Parameter(torch.zeros(labels, width), requires_grad=False)
        self.limits = nn.Parameter(torch.tensor([1.0, NEVER]), requires_grad=False)

    def forward(self, read: Tensor) -> Tensor:
        """[..., W] -> logits [..., C]."""
        logits = super().forward(read)
        is_outside = torch.arange(len(self.centres), device=read.device) == self.outside
        similar = nn.functional.normalize(read.float(), dim=-1) @ self.centres.T
        nearest = similar.masked_fill(is_outside, -torch.inf).amax(-1, keepdim=True)
        best = logits.masked_fill(is_outside, -torch.inf).amax(-1, keepdim=True)
        found: Tensor = torch.where(is_outside, best + self.limits[0] * (self.limits[1] - nearest), logits)
        return found
