"""The Prometheus metrics of a process.

The table `METRICS` is a contract: dashboards and alert rules depend on its names, types and labels. Label values come
from settings and closed lists, never from records. On the hot path everything is observed per batch.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from ...schemas.deadletter import DeadLetterReason
from .collectors import Counter, LabelledReadings, Registry
from .device_use import DeviceUse
from .experiment_metrics import ExperimentMetrics
from .histogram import BatchHistogram
from .metrics_table import METRICS, Metric
from .version_metrics import VersionLabels, VersionMetrics

__all__ = ["METRICS", "Counter", "DeviceUse", "Metric", "Metrics"]

SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
RUN_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ROWS: Final = tuple(float(2**power) for power in range(11))
PIECES: Final = (2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 24.0, 32.0, 40.0, 64.0)
TOKENS: Final = tuple(float(2**power) for power in range(4, 17))


_BUCKETS: Final[dict[str, tuple[float, ...]]] = {
    "murmura_end_to_end_seconds": SECONDS,
    "murmura_queue_seconds": SECONDS,
    "murmura_inference_seconds": RUN_SECONDS,
    "murmura_batch_rows": ROWS,
    "murmura_batch_tokens": TOKENS,
    "murmura_decoder_step_seconds": RUN_SECONDS,
    "murmura_decoder_step_rows": ROWS[:9],
    "murmura_reply_first_step_seconds": SECONDS,
    "murmura_reply_pieces": PIECES,
}

_READ_BY_LABELS: Final = (
    "murmura_consumer_lag_records",
    "murmura_waiting_records",
    "murmura_oldest_unfinished_seconds",
    "murmura_seconds_since_fetch",
    "murmura_suspended_agents",
    "murmura_retries_behind_records",
    "murmura_dead_letter_topic_records",
    "murmura_dead_letter_topic_age_seconds",
)


Readings = Callable[[], Mapping[tuple[str, ...], float]]


class Metrics:
    """All metrics of one process, in their own registry. Used on the event loop.

    Values that exist elsewhere (in flight, lag, assignment) are read at each scrape: see `watch`.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, clock: Callable[[], float] = time.monotonic):
        self.registry = registry or Registry()
        self.use = DeviceUse(clock=clock)
        ProcessCollector(registry=self.registry)
        self._added: dict[str, Counter | Gauge] = {}
        """Metrics of agents, by name."""
        table = {metric.name: metric for metric in METRICS}

        def histogram(name: str) -> BatchHistogram:
            made = BatchHistogram(name, table[name].help, table[name].labels, _BUCKETS[name])
            self.registry.register(made)
            return made

        def counter(name: str, *expected: str) -> Counter:
            made = Counter(table[name])
            made.expect((value,) for value in expected)
            self.registry.register(made)
            return made

        def gauge(name: str) -> Gauge:
            return Gauge(name, table[name].help, table[name].labels, registry=self.registry)

        self._records = counter("murmura_records_total")
        self._dead_letters = counter("murmura_dead_letters_total")
        self._expired_answers = counter("murmura_expired_answers_total")
        self._commits = counter("murmura_commits_total", "ok", "failed")
        self._truncated = counter("murmura_truncated_total")
        self._send_retries = counter("murmura_send_retries_total")
        self._failed_fetches = counter("murmura_failed_fetches_total")
        self._new_logs = counter("murmura_new_logs_total")
        self._expired = counter("murmura_expired_records_total")
        self._swaps = counter("murmura_model_swaps_total", "swapped", "rejected", "stale")
        self._reviews = counter("murmura_reviews_total")
        self._dropped = counter("murmura_dropped_messages_total")
        self.end_to_end = histogram("murmura_end_to_end_seconds")
        self.queue = histogram("murmura_queue_seconds")
        self.inference = histogram("murmura_inference_seconds")
        self.batch_rows = histogram("murmura_batch_rows")
        self.batch_tokens = histogram("murmura_batch_tokens")
        self.step_seconds = histogram("murmura_decoder_step_seconds")
        self.step_rows = histogram("murmura_decoder_step_rows")
        self.first_step = histogram("murmura_reply_first_step_seconds")
        self.reply_pieces = histogram("murmura_reply_pieces")
        self._replies = counter("murmura_replies_total", "end", "length", "failed", "late")
        self._in_flight = gauge("murmura_in_flight_records")
        self._assigned = gauge("murmura_assigned_partitions")
        self._paused = gauge("murmura_paused_partitions")
        self._breaker = gauge("murmura_breaker_open")
        self._retries_in_memory = gauge("murmura_retries_in_memory")
        self._retries_overdue = gauge("murmura_retries_overdue_seconds")
        self.experiments, self.versions = (
            ExperimentMetrics(self.registry, table),
            VersionMetrics(self.registry, table, SECONDS),
        )
        self._model_info = gauge("murmura_model_info")
        self._model_labels: dict[tuple[str, str], tuple[str, ...]] = {}
        gauge("murmura_device_busy_ratio").set_function(self.use.busy_ratio)
        gauge("murmura_host_seconds_per_record").set_function(self.use.host_seconds_per_record)
        by_labels = tuple(LabelledReadings(table[name]) for name in _READ_BY_LABELS)
        for readings in by_labels:
            self.registry.register(readings)
        (self._lag, self._waiting, self._oldest, self._since_fetch,
         self._suspended, self._retries_behind, self._letters, self._letters_age) = by_labels  # fmt: skip

    def batch(self, rows: int, tokens: int, queue_seconds: float | ArrayLike, run_seconds: float) -> None:
        """Record a finished forward pass. `queue_seconds`: the wait of each row, or one number for all of them."""
        self.batch_rows.observe(rows)
        self.batch_tokens.observe(tokens)
        self.inference.observe(run_seconds)
        if isinstance(queue_seconds, float | int):
            self.queue.observe(max(queue_seconds, 0.0), times=rows)
        else:
            self.queue.observe_many(queue_seconds)
        self.use.ran(rows, run_seconds)

    def step(self, rows: int, run_seconds: float, first_step_seconds: ArrayLike) -> None:
        """Record a finished step of a decoder; see `BatchObserver.step`."""
        self.step_rows.observe(rows)
        self.step_seconds.observe(run_seconds)
        self.first_step.observe_many(first_step_seconds)
        self.use.ran(0, run_seconds)

    def reply(self, outcome: Literal["end", "length", "failed", "late"], pieces: int = 0) -> None:
        """Record a reply that has ended; see `BatchObserver.reply`."""
        self._replies.add((outcome,))
        if outcome in {"end", "length"}:
            self.reply_pieces.observe(pieces)

    def answered(self, agent: str, topic: str, seconds: ArrayLike, *, outcome: str = "answered") -> None:
        """Record acknowledged results; `seconds` has the time of each since its request's timestamp."""
        self._records.add((agent, topic, outcome), self.end_to_end.observe_many(seconds, (agent,)))

    def silent(self, agent: str, topic: str, records: int = 1) -> None:
        """Record that the agent decided to publish nothing for `records` records."""
        self._records.add((agent, topic, "silent"), records)

    def answered_expired(self, agent: str, topic: str, limit: str, records: int) -> None:
        """So many requests were too old for an agent: past its `max_age`, or past the sender's `deadline`."""
        self._expired_answers.add((agent, limit), records)
        self._records.add((agent, topic, "expired"), records)

    def expect_expired(self, agents: Iterable[str]) -> None:
        """Begin at 0 what may be counted of agents that predict."""
        self._expired_answers.expect(
            (agent, limit) for agent in sorted(set(agents)) for limit in ("max_age", "deadline")
        )

    def truncated(self, topic: str) -> None:
        """Count a text that was truncated and answered."""
        self._truncated.add((topic,))

    def dead_letter(self, agent: str | None, topic: str, reason: str, records: int = 1) -> None:
        self._dead_letters.add((agent or "", reason), records)
        self._records.add((agent or "", topic, "dead_letter"), records)

    def expect_dead_letters(self, agents: Iterable[str]) -> None:
        """Start the counters at 0, so that the first dead letter shows as an increase."""
        everyone = ("", *sorted(agents))
        self._dead_letters.expect((agent, reason.value) for agent in everyone for reason in DeadLetterReason)

    def commit(self, ok: bool) -> None:
        self._commits.add(("ok" if ok else "failed",))

    def failed_fetch(self, error: str) -> None:
        self._failed_fetches.add((error,))

    def new_log(self, topic: str) -> None:
        """Count a new log of a partition."""
        self._new_logs.add((topic,))

    def expired(self, topic: str, records: int) -> None:
        """Count records that the broker deleted before they were read."""
        self._expired.add((topic,), records)

    def expect_topics(self, topics: Iterable[str]) -> None:
        """Start the counters by request topic at 0."""
        labels = [(topic,) for topic in topics]
        self._new_logs.expect(labels)
        self._expired.expect(labels)

    def send_retry(self, records: int = 1) -> None:
        self._send_retries.add((), records)

    def swap(self, outcome: Literal["swapped", "rejected", "stale"]) -> None:
        """Count a considered release."""
        self._swaps.add((outcome,))

    def review(self, agent: str, task: str, why: str) -> None:
        """Count a request to review a prediction."""
        self._reviews.add((agent, task, why))

    def dropped(self, topic: str) -> None:
        """Count a best-effort message that was refused."""
        self._dropped.add((topic,))

    def add_counter(self, metric: Metric) -> "Counter":
        """Return a counter of an agent; the same one when it is asked for again."""
        if metric.name not in self._added:
            self._added[metric.name] = counter = Counter(metric)
            self.registry.register(counter)
        found = self._added[metric.name]
        assert isinstance(found, Counter), metric.name
        return found

    def add_gauge(self, metric: Metric) -> Gauge:
        """Return a gauge of an agent; the same one when it is asked for again."""
        if metric.name not in self._added:
            self._added[metric.name] = Gauge(metric.name, metric.help, metric.labels, registry=self.registry)
        found = self._added[metric.name]
        assert isinstance(found, Gauge), metric.name
        return found

    def model(self, name: str, version: int, device: str, graph: str, *, run_slots: int = 1, place: str = "") -> None:
        """Set the serving version of a model, and how many forward passes may run at once. `place`: which of several models."""
        self._set_model(place, "current", (name, str(version), device, graph))
        self.use.configure(run_slots, runs_on_host=device == "cpu")

    def candidate(self, labels: tuple[str, str, str, str] | None, *, place: str = "") -> None:
        """Set the candidate beside the serving version by name, version, device and graph; None: there is none."""
        self._set_model(place, "candidate", labels)

    def _set_model(self, place: str, variant: str, labels: tuple[str, ...] | None) -> None:
        self._model_labels.pop((place, variant), None)
        if labels is not None:
            self._model_labels[place, variant] = (*labels, variant)
        self._model_info.clear()
        for each in self._model_labels.values():
            self._model_info.labels(*each).set(1)
        self.versions.load([VersionLabels(each[0], each[1], each[-1]) for each in self._model_labels.values()])

    def watch(
        self,
        *,
        in_flight: Callable[[], float] | None = None,
        assigned: Callable[[], float] | None = None,
        paused: Callable[[], float] | None = None,
        device_fails: Callable[[], float] | None = None,
        lag: Readings | None = None,
        waiting: Readings | None = None,
        oldest_unfinished: Readings | None = None,
        since_fetch: Readings | None = None,
        suspended: Readings | None = None,
        retries_behind: Readings | None = None,
        retries_in_memory: Callable[[], float] | None = None,
        retries_overdue: Callable[[], float] | None = None,
        letters: Readings | None = None,
        letters_age: Readings | None = None,
    ) -> None:
        """Read these at each scrape. `Readings` map label values to a value; series that they leave out disappear."""
        for gauge, read in (
            (self._in_flight, in_flight),
            (self._assigned, assigned),
            (self._paused, paused),
            (self._breaker, device_fails),
            (self._retries_in_memory, retries_in_memory),
            (self._retries_overdue, retries_overdue),
        ):
            if read is not None:
                gauge.set_function(read)
        for readings, by_partition in (
            (self._lag, lag),
            (self._waiting, waiting),
            (self._oldest, oldest_unfinished),
            (self._since_fetch, since_fetch),
            (self._suspended, suspended),
            (self._retries_behind, retries_behind),
            (self._letters, letters),
            (self._letters_age, letters_age),
        ):
            if by_partition is not None:
                readings.read = by_partition
