"""Sums over the units of one side, from which a ratio and its standard error follow."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Number = float | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RatioSums:
    """Sums over units, each with a number of events `value` out of a number of chances `weight`.

    Two of them add up to the sums over both's units. Fields are numbers, or arrays of one shape: many experiments at once.
    """

    units: Number = 0.0
    value: Number = 0.0
    weight: Number = 0.0
    value_squared: Number = 0.0
    weight_squared: Number = 0.0
    product: Number = 0.0
    with_event: Number = 0.0
    """Number of units with at least one event."""
    without_event: Number = 0.0
    """Number of units with at least one chance that had no event."""

    def __add__(self, other: "RatioSums") -> "RatioSums":
        return RatioSums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(RatioSums)))

    def with_unit(self, value: float, weight: float) -> "RatioSums":
        """Return the sums, of one experiment, with one more unit; one without a chance does not count."""
        if weight <= 0.0:
            return self
        return RatioSums(
            self.units + 1.0,
            self.value + value,
            self.weight + weight,
            self.value_squared + value * value,
            self.weight_squared + weight * weight,
            self.product + value * weight,
            self.with_event + float(value > 0.0),
            self.without_event + float(value < weight),
        )

    @property
    def ratio(self) -> Number:
        """Events per chance over all units; NaN without a chance."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Number = np.divide(self.value, self.weight)
        return ratio

    @property
    def variance(self) -> Number:
        """Squared standard error of the ratio by the delta method.

        Source: Deng, Knoblich, Lu, Applying the Delta Method in Metric Analytics, 2018, section 3. Units may be of any size:
        chances of one unit need not be independent. NaN for fewer than two units.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.ratio
            residuals = self.value_squared - 2.0 * ratio * self.product + ratio**2 * self.weight_squared
            mean_weight = np.divide(self.weight, self.units)
            variance: Number = np.maximum(residuals, 0.0) / (
                (np.asarray(self.units) - 1.0) * self.units * mean_weight**2
            )
        return variance


def sum_units(units: Iterable[tuple[float, float]]) -> RatioSums:
    """Return the sums over units, each its number of events and of chances. Units without a chance do not count."""
    sums = RatioSums()
    for value, weight in units:
        sums = sums.with_unit(value, weight)
    return sums
