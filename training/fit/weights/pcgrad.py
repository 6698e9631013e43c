"""PCGrad (Yu et al. 2020): where two gradients conflict, each loses its part along the other."""

from typing import ClassVar

from torch import Tensor
from torchjd.aggregation import PCGradWeighting

from .weighting import Weighting


class PCGrad(Weighting):
    """The sum of the projected gradients; in which order a gradient meets the others is drawn at random."""

    combines_gradients: ClassVar[bool] = True

    def __init__(self) -> None:
        self._weights = PCGradWeighting()

    def combine(self, products: Tensor) -> Tensor:
        found: Tensor = self._weights(products)
        return found
