"""Replies of the network in training: how likely it finds those that there are, and which it would write."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..kinds.kind import Kind
from ..kinds.replies.decoder import Decoded, log_probabilities
from .network import MultiTask
from .padding import in_order, pad

Texts = Sequence[NDArray[np.integer[Any]]]


def score_replies(
    model: MultiTask, task: int, kind: Kind, texts: Texts, targets: Texts, *, device: str, bf16: bool
) -> list[NDArray[np.float32]]:
    """Return the log-probability of each piece of each reply in `targets`, in the order of `texts` (token ids)."""
    model.eval()
    found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
    for rows in in_order(texts, 64):
        ids, mask = (each.to(device) for each in pad([texts[row] for row in rows]))
        target = kind.collate([targets[row] for row in rows], ids.shape[1]).to(device)
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            logits = model.answer(task, model.encode(ids, mask), target)
        for row, values in zip(rows, log_probabilities(logits, target), strict=True):
            found[row] = values
    return found


def decode_replies(
    model: MultiTask,
    task: int,
    texts: Texts,
    *,
    device: str,
    bf16: bool,
    forbidden: Sequence[NDArray[np.float32]] | None = None,
) -> list[Decoded]:
    """Return the greedy reply to each text, in the order of `texts` (token ids); `forbidden` [V] are added to its logits."""
    model.eval()
    found: dict[int, Decoded] = {}
    for rows in in_order(texts, 64):
        ids, mask = (each.to(device) for each in pad([texts[row] for row in rows]))
        added = None if forbidden is None else torch.from_numpy(np.stack([forbidden[row] for row in rows])).to(device)
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            found |= zip(rows, model.heads[task].decode(model.encode(ids, mask).states, mask, added), strict=True)
    return [found[row] for row in range(len(texts))]
