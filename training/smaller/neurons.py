"""Which neurons of the feed-forward parts are kept, and the weights of a model with these alone. Pure."""

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .layers import Weights

UP: Final = re.compile(
    r"(encoder\.layer\.\d+\.)intermediate\.dense\.weight|(heads\..+\.layers\.\d+\.feed_forward\.)up\.weight"
)
"""The weights into the neurons, in an encoder and in a decoder."""


def choose_neurons(
    up: NDArray[np.floating], bias: NDArray[np.floating], down: NDArray[np.floating], count: int
) -> NDArray[np.intp]:
    """Return `count` of the neurons of a feed-forward part, in their order: those of greatest weight.

    `up` (neurons, hidden) and `bias` (neurons) lead into the neurons, `down` (hidden, neurons) out of them. The weight of a
    neuron is the product of the Euclidean norms of what leads into it and out of it, which no rescaling between the two
    changes (structured pruning by magnitude: Li et al. 2017, McCarley et al. 2019).
    """
    if not 1 <= count <= len(up):
        raise ValueError(f"{count} neurons of {len(up)}")
    into = np.sqrt(np.square(up, dtype=np.float64).sum(axis=1) + np.square(bias, dtype=np.float64))
    weight = into * np.sqrt(np.square(down, dtype=np.float64).sum(axis=0))
    return np.sort(np.argsort(-weight, kind="stable")[:count])


def keep_neurons(weights: Weights, count: int) -> Weights:
    """Return the weights of a model with `count` neurons in each feed-forward part, those of decoders as well."""
    found = dict(weights)
    for name in weights:
        match = UP.fullmatch(name)
        if match is None:
            continue
        into, out = (
            (match[1] + "intermediate.dense", match[1] + "output.dense")
            if match[1]
            else (match[2] + "up", match[2] + "down")
        )
        kept = choose_neurons(weights[into + ".weight"], weights[into + ".bias"], weights[out + ".weight"], count)
        found[into + ".weight"], found[into + ".bias"] = weights[into + ".weight"][kept], weights[into + ".bias"][kept]
        found[out + ".weight"] = weights[out + ".weight"][:, kept]
    return found
