"""What each loaded version of a model does. The series of a version end when it is unloaded, so there are few."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, NamedTuple, get_args

from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry

from .collectors import Counter
from .histogram import BatchHistogram
from .metrics_table import Metric

CandidateOutcome = Literal["loaded", "rejected", "failed", "stopped", "completed"]
CANDIDATE_OUTCOMES: Final = get_args(CandidateOutcome)
ANSWER_OUTCOMES: Final = ("labelled", "below_threshold", "out_of_scope")
RATIOS: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0)


class VersionLabels(NamedTuple):
    """A loaded version: name and version of the model, and `current` or `candidate`."""

    name: str
    version: str
    variant: str


class VersionMetrics:
    """Figures by loaded version. What is counted for one that is not loaded is left out."""

    def __init__(self, registry: CollectorRegistry, table: Mapping[str, Metric], seconds: Sequence[float]) -> None:
        self._candidates = Counter(table["murmura_candidates_total"])
        self._candidates.expect((outcome,) for outcome in CANDIDATE_OUTCOMES)
        self._records = Counter(table["murmura_version_records_total"])
        self._answers = Counter(table["murmura_version_answers_total"])
        self._seconds = _make_histogram(table["murmura_version_end_to_end_seconds"], seconds)
        self._ratios = _make_histogram(table["murmura_version_pass_ratio"], RATIOS)
        self._loaded: frozenset[tuple[str, ...]] = frozenset()
        for each in (self._candidates, self._records, self._answers, self._seconds, self._ratios):
            registry.register(each)

    def load(self, loaded: Collection[VersionLabels]) -> None:
        """Set the versions that are loaded now: the series of others end."""
        self._loaded = frozenset(tuple(each) for each in loaded)
        for each in (self._records, self._answers, self._seconds, self._ratios):
            each.keep(self._is_loaded)
        self._records.expect((*each, outcome) for each in loaded for outcome in ("answered", "failed"))

    def count_candidate(self, outcome: CandidateOutcome) -> None:
        """Count what became of a candidate in this process."""
        self._candidates.add((outcome,))

    def answered(self, version: VersionLabels, seconds: ArrayLike) -> None:
        """Record acknowledged results; `seconds` has the time of each since its request's timestamp."""
        if version in self._loaded:
            self._records.add((*version, "answered"), self._seconds.observe_many(seconds, tuple(version)))

    def failed(self, version: VersionLabels, records: int) -> None:
        """Record that a version failed on records, whether another one answers them or not."""
        if version in self._loaded:
            self._records.add((*version, "failed"), records)

    def passed(self, version: VersionLabels, pass_ratio: float, rows: int) -> None:
        """Record how slow a pass was for its rows; see `VersionTerms.find_pass_ratio`."""
        if version in self._loaded:
            self._ratios.observe(pass_ratio, tuple(version), times=rows)

    def classified(self, version: VersionLabels, counts: Mapping[tuple[str, str], int]) -> None:
        """Record answers that are one label, by task and outcome: labelled, or the reason why it was withheld."""
        if version not in self._loaded:
            return
        for (task, outcome), count in counts.items():
            if (*version, task, outcome) not in self._answers:
                self._answers.expect((*version, task, each) for each in ANSWER_OUTCOMES)
            self._answers.add((*version, task, outcome), count)

    def _is_loaded(self, labels: tuple[str, ...]) -> bool:
        return labels[: len(VersionLabels._fields)] in self._loaded


def _make_histogram(metric: Metric, bounds: Sequence[float]) -> BatchHistogram:
    return BatchHistogram(metric.name, metric.help, metric.labels, bounds)
