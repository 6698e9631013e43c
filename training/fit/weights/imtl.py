"""IMTL-G (Liu et al. 2021): the sum of the gradients that is projected equally onto each of them."""

from typing import ClassVar

from torch import Tensor
from torchjd.aggregation import IMTLGWeighting

from .weighting import Weighting


class ImpartialGradients(Weighting):
    """Weights that sum to the number of tasks; one may be negative."""

    combines_gradients: ClassVar[bool] = True

    def __init__(self) -> None:
        self._weights = IMTLGWeighting()

    def combine(self, products: Tensor) -> Tensor:
        found: Tensor = len(products) * self._weights(products)
        return found
