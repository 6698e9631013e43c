"""Says what the sums of an experiment allow to conclude, for people: a row for each measure, and what stands beside. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from ...schemas.experiment import Experiment, Measure
from ...schemas.experiment_state import Decided, Ended, ExperimentState
from .assignment import Side
from .decision import Judged, Sums, decide
from .distributions import Distributions, find_latency, find_score, list_heights
from .intervals import MISMATCH_P, estimate_effect, find_mismatch
from .kept_state import read_distributions, read_tally
from .sums import RatioSums

Role = Literal["goal", "guardrail", "shown"]
Verdict = Literal["reached", "broken", "open", "no interval yet", ""]
NOTHING: Final = RatioSums()
SCORE_PARTS: Final = (0.1, 0.5, 0.9)
LATENCY_PARTS: Final = (0.5, 0.95, 0.99)
_SIDES: Final[tuple[Side, ...]] = ("control", "candidate")


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of both sides. NaN where there is no value, or no interval, yet."""

    key: str
    role: Role
    """`shown`: nothing is decided by it."""
    control: float
    candidate: float
    units: tuple[int, int]
    """Units with a value: the control's and the candidate's."""
    difference: float
    """Candidate minus control."""
    low: float
    high: float
    margin: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The scores of a task's answers by one side: their quantiles at `SCORE_PARTS`, and the height of each bin from 0 to 1."""

    task: str
    side: Side
    answers: int
    quantiles: tuple[float, ...]
    heights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """The milliseconds from request to result of one side: their quantiles at `LATENCY_PARTS`."""

    side: Side
    results: int
    quantiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of an experiment. Times are those of records."""

    experiment: Experiment
    model: str
    current: int
    candidate: int
    looked: datetime
    """All is as of this minute."""
    hours: float
    units: tuple[int, int]
    """Units that have entered: the control's and the candidate's."""
    open_units: int
    moved: int
    sampled: float
    """Part of the units that is counted."""
    mismatch: float
    """p-value of the number of units on the candidate's side."""
    rows: tuple[Row, ...]
    by_task: tuple[Row, ...]
    pass_ratios: tuple[float, ...]
    """95th percentile of device time a pass divided by the calibrated time: the candidate's and the control's; or nothing."""
    scores: tuple[ScoreRow, ...]
    latency: tuple[LatencyRow, ...]
    answers: dict[str, int]
    skipped: dict[str, int]
    action: str
    why: str
    decided: tuple[Decided, ...]
    ended: Ended | None

    @property
    def is_uneven(self) -> bool:
        """Whether the sides are filled so unevenly that nothing is concluded."""
        return self.mismatch < MISMATCH_P


def report_experiment(state: ExperimentState) -> Report:
    """Return what the kept sums of an experiment say. Goals and guardrails have the intervals that decide, all others those
    of a single measure.
    """
    tally, rules, distributions = read_tally(state), state.experiment.rules, read_distributions(state)
    sums: Sums = {
        key: (sides.get("candidate", NOTHING), sides.get("control", NOTHING)) for key, sides in tally.sums.items()
    }
    mismatch = float(find_mismatch(tally.expected, tally.variance, float(tally.units["candidate"])))
    hours = max(state.minute * 60 - state.experiment.started.timestamp(), 0.0) / 3600
    decision = decide(rules, sums, (tally.units["candidate"], tally.units["control"]), hours, mismatch)
    judged = [
        *_make_rows("goal", decision.goals, sums, rules.alpha / max(len(rules.goals), 1), rules.tuning),
        *_make_rows("guardrail", decision.guardrails, sums, rules.alpha / max(len(rules.guardrails), 1), rules.tuning),
    ]
    known = {row.key for row in judged}
    others = [_make_row(key, "shown", sums, rules.alpha, rules.tuning) for key in sorted(sums) if key not in known]
    return Report(
        experiment=state.experiment,
        model=state.model,
        current=state.current,
        candidate=state.candidate,
        looked=datetime.fromtimestamp(state.minute * 60, UTC),
        hours=hours,
        units=(tally.units["control"], tally.units["candidate"]),
        open_units=state.open_units,
        moved=tally.moved,
        sampled=tally.sampled,
        mismatch=mismatch,
        rows=(*judged, *(row for row in others if not _is_by_task(row.key))),
        by_task=tuple(row for row in others if _is_by_task(row.key)),
        pass_ratios=tuple(state.pass_ratios.latest),
        scores=tuple(_list_scores(distributions)),
        latency=tuple(_list_latency(distributions)),
        answers=dict(state.answers),
        skipped=dict(state.skipped),
        action=decision.action,
        why=decision.why,
        decided=tuple(state.decided),
        ended=state.ended,
    )


def _list_scores(distributions: Distributions) -> Iterator[ScoreRow]:
    for task, sides in sorted(distributions.scores.items()):
        for side in _SIDES:
            if bins := sides.get(side):
                quantiles = tuple(find_score(bins, part) for part in SCORE_PARTS)
                yield ScoreRow(task, side, bins.total(), quantiles, tuple(list_heights(bins)))


def _list_latency(distributions: Distributions) -> Iterator[LatencyRow]:
    for side in _SIDES:
        if bins := distributions.latency.get(side):
            yield LatencyRow(side, bins.total(), tuple(find_latency(bins, part) for part in LATENCY_PARTS))


def _is_by_task(key: str) -> bool:
    """Whether a key is a measure's of one task: `withheld/intent`, but not `ratio/orders`, which is the name of a ratio."""
    measure, _, rest = key.partition("/")
    return "/" in rest if measure == "ratio" else bool(rest)


def _make_rows(role: Role, judged: Sequence[Judged], sums: Sums, alpha: float, tuning: int) -> Iterator[Row]:
    for each in judged:
        yield _make_row(each.measure.key, role, sums, alpha, tuning, each)


def _make_row(key: str, role: Role, sums: Sums, alpha: float, tuning: int, judged: Judged | None = None) -> Row:
    candidate, control = sums.get(key, (NOTHING, NOTHING))
    effect = estimate_effect(candidate, control, alpha, tuning, guards=role == "guardrail")
    measure: Measure | None = judged.measure if judged else None
    return Row(
        key=key,
        role=role,
        control=float(control.ratio),
        candidate=float(candidate.ratio),
        units=(int(control.units), int(candidate.units)),
        difference=float(effect.difference),
        low=float(effect.low),
        high=float(effect.high),
        margin=measure.margin if measure else None,
        verdict=_judge(role, judged),
    )


def _judge(role: Role, judged: Judged | None) -> Verdict:
    if judged is None:
        return ""
    if math.isnan(judged.low):
        return "no interval yet"
    if role == "goal":
        return "reached" if judged.is_reached else "open"
    return "broken" if judged.is_broken else "open"
