"""Texts of unlike length as one padded array."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def pad(texts: Sequence[NDArray[np.integer[Any]]]) -> tuple[Tensor, Tensor]:
    """Return ids and mask [B, S], S as long as the longest text and no longer.

    Padding is masked, so its id does not matter; the first token of the batch is one that a narrowed word table has.
    """
    width = max(len(tokens) for tokens in texts)
    ids = np.full((len(texts), width), texts[0][0], np.int64)
    mask = np.zeros((len(texts), width), np.int64)
    for at, tokens in enumerate(texts):
        ids[at, : len(tokens)] = tokens
        mask[at, : len(tokens)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def in_order(texts: Sequence[NDArray[np.integer[Any]]], batch_size: int) -> Iterator[list[int]]:
    """Yield all rows once, shortest first: for scoring, where order is free."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
