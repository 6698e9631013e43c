"""What a frozen encoder makes of training rows, computed once instead of in every epoch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..kinds.kind import Kind
from ..model.network import MultiTask
from ..model.padding import in_order, pad

if TYPE_CHECKING:
    from .setup import Fitting

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


def pool_frozen(run: "Fitting") -> None:
    """Let a frozen encoder read the training rows of the tasks that need no more than a vector of each."""
    if not run.model.has_frozen_encoder or run.recipe.word_dropout:
        return
    began = time.process_time()
    for at, (data, part) in enumerate(zip(run.tasks, run.train, strict=True)):
        if not needs_states(data.kind):
            pooled = pool_texts(run.model, at, part.ids, device=run.device, bf16=run.bf16)
            run.train[at] = replace(part, pooled=pooled)
    run.standing.cpu_seconds += time.process_time() - began
