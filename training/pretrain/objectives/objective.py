"""What an objective is asked: its rows, and the loss of some of them."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Ids = NDArray[np.integer[Any]]
Encode = Callable[[Sequence[Ids]], tuple[Tensor, Tensor]]
"""The states [B, S, H] and the mask [B, S] of token ids, padded to the longest."""


class Objective(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Its parameters are trained beside the encoder's, and are no part of the encoder."""

    name: str
    weight: float
    lengths: Sequence[int]
    """Tokens of each row, by which rows of like length are read together."""

    @abstractmethod
    def loss(self, encode: Encode, rows: Sequence[int], draw: np.random.Generator) -> Tensor:
        """Return the mean loss [] of some rows; what is drawn comes from `draw` and from torch's dropout."""

    @abstractmethod
    def place(self, row: int) -> str:
        """Return where a row stands, for errors."""

    @abstractmethod
    def describe(self) -> str:
        """Return what it has to learn from."""


def mean_state(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of a text's states over its tokens [B, H], as the heads of tasks read it."""
    counted = mask.unsqueeze(-1).to(states.dtype)
    return (states * counted).sum(1) / counted.sum(1)
