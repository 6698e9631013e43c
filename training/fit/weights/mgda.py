"""MGDA (Désidéri 2012, Sener and Koltun 2018): the shortest convex combination of the gradients, which descends for every task."""

from typing import ClassVar

from torch import Tensor
from torchjd.aggregation import MGDAWeighting

from .weighting import Weighting


class MGDA(Weighting):
    """Weights that sum to the number of tasks."""

    combines_gradients: ClassVar[bool] = True

    def __init__(self) -> None:
        self._weights = MGDAWeighting()

    def combine(self, products: Tensor) -> Tensor:
        found: Tensor = len(products) * self._weights(products)
        return found
