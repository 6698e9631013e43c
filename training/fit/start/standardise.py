"""Heads of another form read standardised numbers: by the training texts, as the encoder gives them when training begins."""

import numpy as np
import torch
from torch import Tensor

from ...kinds.heads import FormedHead
from ...model.network import MultiTask
from ...model.padding import in_order, pad
from ..rows.encoding import Part

MOST_TEXTS = 1000
"""So many texts, evenly over the part, are enough for means and variances."""


def standardise_inputs(model: MultiTask, task: int, part: Part) -> None:
    """Set the mean and the deviation by which the head of a task standardises; other heads stay as they are, and those that
    read a mask: they begin from what masked words were learned by.
    """
    head = model.heads[task]
    if not isinstance(head, FormedHead) or head.reads_mask:
        return
    rows = np.linspace(0, len(part.ids) - 1, min(MOST_TEXTS, len(part.ids))).astype(int).tolist()
    texts = [part.ids[row] for row in rows]
    count, total, squares = 0, torch.zeros(1), torch.zeros(1)
    model.eval()
    with torch.no_grad():
        for chosen in in_order(texts, 64):
            parts = _parts_of(model, task, head, *pad([texts[row] for row in chosen])).double()
            count, total, squares = count + len(parts), total + parts.sum(0), squares + (parts**2).sum(0)
        mean = total / count
        head.norm.set_to(mean, (squares / count - mean**2).clamp_min(0))


def _parts_of(model: MultiTask, task: int, head: FormedHead, ids: Tensor, mask: Tensor) -> Tensor:
    """Return what the head reads of texts, or of their tokens, one behind the other: [N, K, W]."""
    texts = model.encode(ids, mask)
    if not model.per_token[task]:
        return model.pool(task, texts)
    parts: Tensor = head.stack(texts.states, texts.layers)[mask.bool()]
    return parts
