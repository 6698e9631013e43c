"""What makes the vector of a text of several layers: a linear map of their means."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...schemas.manifest import POOLED

Array = NDArray[Any]


def map_means(means: Sequence[Array], weights: Mapping[str, Array]) -> Array:
    """Return `heads.pooled` of the means [..., H] of some layers, one behind the other."""
    weight, bias = (weights[f"heads.{POOLED}.{part}"] for part in ("weight", "bias"))
    mapped: Array = np.concatenate(means, axis=-1) @ weight.T + bias
    return mapped
