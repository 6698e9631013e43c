"""The inputs of a model's graph for a batch of texts, in either layout."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def ragged_feeds(
    ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]
) -> dict[str, Array]:
    """Return the inputs of the ragged graph for texts concatenated in `ids` [T]."""
    columns = np.arange(max(int(lengths.max(initial=1)), 1))
    mask = columns < lengths[:, None]
    return {
        "input_ids": ids,
        "position_ids": np.arange(len(ids)) - np.repeat(starts[:-1], lengths),
        "seq_index": np.flatnonzero(mask),
        "pad_index": np.where(mask, starts[:-1, None] + columns, len(ids)),
        "attention_mask": mask.astype(np.float32),
    }


def padded_feeds(
    ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]
) -> dict[str, Array]:
    """Return the inputs of the padded graph; padding is token 0, which the mask excludes."""
    del starts
    mask = np.arange(max(int(lengths.max(initial=1)), 1)) < lengths[:, None]
    padded = np.zeros(mask.shape, np.int64)
    padded[mask] = ids
    return {"input_ids": padded, "attention_mask": mask.astype(np.float32)}
