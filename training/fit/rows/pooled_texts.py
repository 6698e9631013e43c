"""What a frozen encoder makes of training rows, computed once instead of in every epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...compute.failures import memory_of
from ...kinds.kind import Kind
from ...model.network import MultiTask
from ...model.padding import in_order, pad

MOST_BYTES: Final = 2**30
"""Of the vectors of a task; more rows are encoded anew in each epoch."""
Texts = Sequence[NDArray[np.integer[Any]]]


@dataclass(frozen=True)
class PooledTexts:
    """Vectors [N, K, W] of the different texts of a part, as `MultiTask.pool` gives them, and the place of each row's."""

    vectors: Tensor
    places: NDArray[np.int64]

    def choose(self, rows: Sequence[int]) -> Tensor:
        """Return the vectors of some rows."""
        return self.vectors[self.places[list(rows)]]


def needs_states(kind: Kind) -> bool:
    """Return whether a task of this kind needs more than a vector of each text to be trained."""
    return kind.per_token or kind.generates or kind.loss_reads_states


@memory_of("vectors of the training rows")
def pool_texts(model: MultiTask, task: int, texts: Texts, *, device: str, bf16: bool) -> PooledTexts | None:
    """Return texts (token ids) as the head of a task reads them; None where they are more than MOST_BYTES."""
    numbers: dict[bytes, int] = {}
    places = np.array([numbers.setdefault(ids.tobytes(), len(numbers)) for ids in texts], np.int64)
    _, firsts = np.unique(places, return_index=True)
    different = [texts[row] for row in firsts]
    vectors: Tensor | None = None
    model.eval()
    for rows in in_order(different, 64):
        ids, mask = pad([different[row] for row in rows])
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            pooled = model.pool(task, model.encode(ids.to(device), mask.to(device))).float()
        if vectors is None:
            if len(different) * pooled[0].nbytes > MOST_BYTES:
                return None
            vectors = torch.empty((len(different), *pooled.shape[1:]), device=device)
        vectors[rows] = pooled
    return None if vectors is None else PooledTexts(vectors, places)
