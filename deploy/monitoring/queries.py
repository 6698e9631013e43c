"""Builds PromQL from the metrics of `METRICS`: an unknown name, label or kind is an error."""

from typing import Literal

from murmura.agents.metrics_table import METRICS
from murmura.runtime.observe.metrics import Metric

_OURS = {metric.name: metric for metric in METRICS}
# Metrics of Prometheus itself and of its client library, which are not in the table.
_FOREIGN = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds"}
_SCRAPED = ("job", "instance")
"""Labels that Prometheus adds to all series."""
_BEFORE = "1h"
"""How long a series must have been absent to be new."""


class Queries:
    """Builds queries over one window (`5m`), each selector narrowed by `where` (`job="murmura"`)."""

    def __init__(self, window: str, where: str = "") -> None:
        self._window, self._where = window, where

    def gauge(self, name: str, *by: str, how: str = "sum", only: str = "") -> str:
        """Return a gauge aggregated by labels; `how` is sum, avg, max, min or count."""
        _known(name, "gauge", by, only)
        return f"{how}{_by(by)} ({self._selector(name, only)})"

    def rate(self, name: str, *by: str, only: str = "") -> str:
        """Return a counter's growth per second."""
        _known(name, "counter", by, only)
        return f"sum{_by(by)} (rate({self._selector(name, only)}[{self._window}]))"

    def growth(self, name: str, *by: str, only: str = "") -> str:
        """Return a counter's growth over the window, including that of series that are new in it.

        `increase` starts at a series' first sample and misses the growth before it. So a series that was absent in the hour
        before the window counts with its whole value; an hour, so that a missed scrape does not make a series new.
        """
        _known(name, "counter", by, only)
        chosen = self._selector(name, only)
        new = f"{chosen} unless max_over_time({chosen}[{_BEFORE}] offset {self._window})"
        return f"sum{_by(by)} (({new}) or increase({chosen}[{self._window}]))"

    def quantile(self, q: float, name: str, *by: str) -> str:
        """Return the quantile `q` of a histogram's observations."""
        _known(name, "histogram", by)
        buckets = f"sum{_by((*by, 'le'))} (rate({self._selector(name + '_bucket')}[{self._window}]))"
        return f"histogram_quantile({q:g}, {buckets})"

    def mean(self, name: str, *by: str) -> str:
        """Return the mean of a histogram's observations."""
        return f"{self.part_rate(name, 'sum', *by)} / {self.part_rate(name, 'count', *by)}"

    def part_rate(self, name: str, part: Literal["sum", "count"], *by: str) -> str:
        """Return how much a histogram's observations, or their number, grow per second."""
        _known(name, "histogram", by)
        return f"sum{_by(by)} (rate({self._selector(f'{name}_{part}')}[{self._window}]))"

    def _selector(self, name: str, only: str = "") -> str:
        inside = ", ".join(part for part in (self._where, only) if part)
        return f"{name}{{{inside}}}" if inside else name


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _known(name: str, kind: str, by: tuple[str, ...], only: str = "") -> None:
    if name in _FOREIGN:
        return
    metric: Metric | None = _OURS.get(name)
    if metric is None:
        raise ValueError(f"{name} is not a metric of murmura")
    if metric.kind != kind:
        raise ValueError(f"{name} is a {metric.kind}, not a {kind}")
    used = [*by, *(part.split("=")[0].rstrip("!").strip() for part in only.split(", ") if part)]
    if unknown := [label for label in used if label not in (*metric.labels, *_SCRAPED)]:
        raise ValueError(f"{name} has no label {unknown[0]}; it has {', '.join(metric.labels) or 'none'}")
