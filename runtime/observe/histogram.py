"""A histogram that takes a whole batch at once.

`Histogram.observe` of prometheus-client costs 0.8 us a value and its children cannot be added to in bulk; here a batch
of any size is one `searchsorted` and one `bincount`, and the buckets become Prometheus' only when they are scraped.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class _Series:
    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = np.zeros(buckets + 1, dtype=np.int64)
        self.total = 0.0


class BatchHistogram(Collector):
    """Counts values in fixed buckets, one series for each tuple of label values.

    Written by the event loop only. A scrape from another thread may see the values of one batch counted and not yet
    summed, nothing worse.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name, self.documentation, self.labels = name, documentation, tuple(labels)
        self._bounds = list(bounds)
        self._edges = np.asarray(bounds, dtype=np.float64)
        self._series: dict[tuple[str, ...], _Series] = {}
        if not self.labels:
            self._of(())  # without labels the series exists from the start, as in prometheus-client

    def observe(self, value: float, labels: tuple[str, ...] = (), times: int = 1) -> None:
        """Count one value, or the same value `times` times."""
        series = self._of(labels)
        series.counts[bisect_left(self._bounds, value)] += times
        series.total += value * times

    def observe_many(self, values: ArrayLike, labels: tuple[str, ...] = ()) -> int:
        """Count each of `values` and return how many they were. What is negative (clocks of two machines) counts as 0."""
        array = np.maximum(np.asarray(values, dtype=np.float64), 0.0)
        series = self._of(labels)
        # A bucket's bound is inclusive, hence "left".
        series.counts += np.bincount(self._edges.searchsorted(array), minlength=len(series.counts))
        series.total += float(array.sum())
        return array.size

    def totals(self, labels: tuple[str, ...] = ()) -> tuple[int, float]:
        """Return how many values were counted, and their sum."""
        series = self._of(labels)
        return int(series.counts.sum()), series.total

    def describe(self) -> list[HistogramMetricFamily]:
        return [HistogramMetricFamily(self.name, self.documentation, labels=self.labels)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.labels)
        names = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        for labels, series in list(self._series.items()):
            cumulative = np.cumsum(series.counts)
            buckets = [(name, float(count)) for name, count in zip(names, cumulative, strict=True)]
            family.add_metric(labels, buckets=buckets, sum_value=series.total)
        yield family

    def _of(self, labels: tuple[str, ...]) -> _Series:
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series(len(self._bounds))
        return series
