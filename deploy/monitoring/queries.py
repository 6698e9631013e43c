"""PromQL made of our metric names: a name, a label or a kind that `METRICS` does not have is an error here."""

from murmura.runtime.observe.metrics import METRICS, Metric

_OURS = {metric.name: metric for metric in METRICS}
# Not in our table: what Prometheus itself and its client library say of every process.
_FOREIGN = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds"}
_SCRAPED = ("job", "instance")
"""Labels that Prometheus adds to everything that it reads."""
_BEFORE = "1h"
"""For how long a series must not have been there to be new."""


class Queries:
    """Builds queries over one window (`5m`), each selector narrowed by `where` (`job="murmura"`)."""

    def __init__(self, window: str, where: str = "") -> None:
        self._window, self._where = window, where

    def gauge(self, name: str, *by: str, how: str = "sum", only: str = "") -> str:
        """Return a gauge put together by labels; `how` is sum, avg, max, min or count."""
        _known(name, "gauge", by, only)
        return f"{how}{_by(by)} ({self._selector(name, only)})"

    def rate(self, name: str, *by: str, only: str = "") -> str:
        """Return a counter's growth a second."""
        _known(name, "counter", by, only)
        return f"sum{_by(by)} (rate({self._selector(name, only)}[{self._window}]))"

    def growth(self, name: str, *by: str, only: str = "") -> str:
        """Return a counter's growth over the window, that of a series which is new in it included.

        `increase` begins at a series' first sample: where that is not 0, it does not see how it came about. So a series
        that was not there in the hour before the window has grown by all that it counts. It takes an hour, not a moment:
        a missed scrape makes nothing new.
        """
        _known(name, "counter", by, only)
        chosen = self._selector(name, only)
        new = f"{chosen} unless max_over_time({chosen}[{_BEFORE}] offset {self._window})"
        return f"sum{_by(by)} (({new}) or increase({chosen}[{self._window}]))"

    def quantile(self, q: float, name: str, *by: str) -> str:
        """Return the value that a share `q` of a histogram's observations stays below."""
        _known(name, "histogram", by)
        buckets = f"sum{_by((*by, 'le'))} (rate({self._selector(name + '_bucket')}[{self._window}]))"
        return f"histogram_quantile({q:g}, {buckets})"

    def mean(self, name: str, *by: str) -> str:
        """Return the mean of a histogram's observations."""
        _known(name, "histogram", by)
        above, below = (
            f"sum{_by(by)} (rate({self._selector(f'{name}_{part}')}[{self._window}]))" for part in ("sum", "count")
        )
        return f"{above} / {below}"

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
        raise ValueError(f"{name} is not one of our metrics")
    if metric.kind != kind:
        raise ValueError(f"{name} is a {metric.kind}, not a {kind}")
    used = [*by, *(part.split("=")[0].rstrip("!").strip() for part in only.split(", ") if part)]
    if unknown := [label for label in used if label not in (*metric.labels, *_SCRAPED)]:
        raise ValueError(f"{name} has no label {unknown[0]}; it has {', '.join(metric.labels) or 'none'}")
