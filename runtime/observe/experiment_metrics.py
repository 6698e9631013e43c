"""Metrics of the experiments that this process holds; other processes have no series of them."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from .metrics_table import Metric


class ExperimentMetrics:
    """One row of values for each model with a running experiment."""

    def __init__(self, registry: CollectorRegistry, table: Mapping[str, Metric]) -> None:
        def gauge(name: str) -> Gauge:
            return Gauge(name, table[name].help, table[name].labels, registry=registry)

        self._units = gauge("murmura_experiment_units")
        self._open = gauge("murmura_experiment_open_units")
        self._age = gauge("murmura_experiment_look_age_seconds")
        self._decision = gauge("murmura_experiment_decision")
        self._behind = gauge("murmura_experiment_behind_records")

    def show(self, model: str, units: tuple[int, int], open_units: int, look_age_s: float, action: str) -> None:
        """Set the values of a model. `units`: the candidate's and the control's. `action`: what is to be done, else `wait`."""
        for side, number in zip(("candidate", "control"), units, strict=True):
            self._units.labels(model, side).set(number)
        self._open.labels(model).set(open_units)
        self._age.labels(model).set(max(look_age_s, 0.0))
        self._decision.labels(model, action).set(1)

    def set_behind(self, records: int) -> None:
        """Set how many records of all logs have not been read yet."""
        self._behind.set(records)

    def clear(self) -> None:
        """Remove the series: nothing is held, or all is shown anew."""
        for gauge in (self._units, self._open, self._age, self._decision):
            gauge.clear()
        self._behind.set(0)
