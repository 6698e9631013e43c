"""Metrics of feedback: verdicts, labels that are new, and the live accuracy of versions."""

from collections import OrderedDict
from typing import Final

from ...runtime.observe.metrics import Metric, Metrics

LIVE_VERSIONS: Final = 4
"""Number of versions per task that have a live accuracy: the most recently judged ones."""

METRICS: Final = (
    Metric("murmura_feedback_total", "counter", ("agent", "task", "version", "verdict"), "Verdicts on predictions"),
    Metric("murmura_feedback_new_labels_total", "counter", ("task",),
           "Labels in feedback that an open task of the serving model does not have"),
    Metric("murmura_live_accuracy", "gauge", ("task", "version"),
           "Share of the last verdicts on a version that agreed with it"),
)  # fmt: skip


class FeedbackMetrics:
    """Label values must be taken from closed lists by the caller."""

    def __init__(self, metrics: Metrics) -> None:
        verdicts, new_labels, live_accuracy = METRICS
        self._verdicts, self._new_labels = metrics.add_counter(verdicts), metrics.add_counter(new_labels)
        self._live_accuracy = metrics.add_gauge(live_accuracy)
        self._live: dict[str, OrderedDict[str, None]] = {}

    def count_verdict(self, agent: str, task: str, version: str, verdict: str) -> None:
        self._verdicts.add((agent, task, version, verdict))

    def count_new_labels(self, task: str, labels: int) -> None:
        self._new_labels.add((task,), labels)

    def set_live_accuracy(self, task: str, version: str, share: float) -> None:
        """Set the accuracy of a version, and leave out the version that was judged longest ago when there are too many."""
        self._live_accuracy.labels(task, version).set(share)
        versions = self._live.setdefault(task, OrderedDict())
        versions[version] = None
        versions.move_to_end(version)
        if len(versions) > LIVE_VERSIONS:
            self._live_accuracy.remove(task, versions.popitem(last=False)[0])
