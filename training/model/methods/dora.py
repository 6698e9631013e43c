"""DoRA by PEFT (Liu et al. 2024): the rows of a weight have a learned length and the direction of W + s * B @ A.

At the beginning the lengths are those of W, and B is zero: the encoder computes what it did.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from torch import Tensor

from .lora import LowRank
from .method import ADAPTER, Arrays, adapted, copy_into, to_numpy

if TYPE_CHECKING:
    from transformers import BertModel


class DoraMethod(LowRank):
    """Factors and lengths [out] beside linear layers."""

    def arrays(self, encoder: "BertModel") -> Arrays:
        return super().arrays(encoder) | {name: to_numpy(length) for name, length in _lengths(encoder)}

    def restore(self, encoder: "BertModel", arrays: Mapping[str, NDArray[Any]]) -> None:
        super().restore(encoder, arrays)
        for name, length in _lengths(encoder):
            copy_into(length, arrays[name])


def _lengths(encoder: "BertModel") -> Iterator[tuple[str, Tensor]]:
    for name, part in adapted(encoder, "lora_magnitude_vector"):
        yield f"magnitude/{name}.weight", part.lora_magnitude_vector[ADAPTER].weight
