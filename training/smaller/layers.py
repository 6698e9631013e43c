"""Which layers of a model are kept, and its weights with these alone. Pure."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ...schemas.manifest import POOLED, TaskSpec

Weights = dict[str, NDArray[Any]]
LAYER: Final = re.compile(r"encoder\.layer\.(\d+)\.(.+)")


def choose_layers(count: int, of: int, keep: Literal["even", "ends", "lowest"]) -> list[int]:
    """Return `count` of the layers 0 to `of` - 1, in their order.

    `even`: evenly spaced, the first and the last among them; of one layer the last. `ends`: half of them the first, half the
    last (the symmetric dropping of Sajjad et al. 2020). `lowest`: the first ones (their top dropping).
    """
    if not 1 <= count <= of:
        raise ValueError(f"{count} layers of {of}")
    if keep == "lowest":
        return list(range(count))
    if keep == "ends":
        first = (count + 1) // 2
        return [*range(first), *range(of - (count - first), of)]
    if count == 1:
        return [of - 1]
    return [(2 * at * (of - 1) + count - 1) // (2 * (count - 1)) for at in range(count)]


def keep_layers(weights: Weights, tasks: Iterable[TaskSpec], kept: Sequence[int]) -> Weights:
    """Return the weights of a model with the layers `kept`, numbered anew.

    Heads that read all layers lose what they read of the others. The map of `pooled: distilled` belongs to the layers that
    were, and is left out.
    """
    places = {layer: at for at, layer in enumerate(kept)}
    found: Weights = {}
    for name, array in weights.items():
        match = LAYER.fullmatch(name)
        if match is None:
            if not name.startswith(f"heads.{POOLED}."):
                found[name] = array
        elif (layer := int(match[1])) in places:
            found[f"encoder.layer.{places[layer]}.{match[2]}"] = array
    parts = [0, *(layer + 1 for layer in kept)]
    for task in tasks:
        if task.head is not None and task.head.layers != "last":
            found |= _narrow_head(found, task, parts)
    return found


def _narrow_head(weights: Weights, task: TaskSpec, parts: Sequence[int]) -> Weights:
    """Return the tensors of a head that have a place for the embeddings and each layer, with these `parts` alone."""
    assert task.head is not None, "the caller has asked"
    head = f"heads.{task.name}."
    by_part = [name for name in ("norm.mean", "norm.deviation", "mix.weight") if head + name in weights]
    found = {head + name: weights[head + name][list(parts)] for name in by_part}
    if task.head.layers == "concat":
        reads = f"{head}{'hidden.' if task.head.hidden is not None else ''}weight"
        count = len(weights[f"{head}norm.mean"])
        array = weights[reads]
        cut = array.reshape(len(array), count, -1)[:, list(parts)]
        found[reads] = np.ascontiguousarray(cut.reshape(len(array), -1))
    return found
