"""The gate: may a retrained model take the current one's place? Pure statistics over what both answered on the same rows.

A metric is a ratio of sums over rows: accuracy is sum(right) / sum(1), a micro-F1 is sum(2 tp) / sum(2 tp + fp + fn). Rows
(texts, also for tagging) are drawn with replacement, the same for both models, and the difference of the two ratios is
taken for each draw (paired bootstrap, Efron and Tibshirani 1993, chapter 8). The interval holds the middle 95 %.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..schemas.training_event import GateFigure

RESAMPLES: Final = 2000
ALLOWANCE: Final = 0.005
LEAST_ROWS: Final = 10
"""A target with fewer rows is not judged: on one row every guess is either surely better or surely worse."""
_CHUNK: Final = 200
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one model scored on each row of a set: shares of a ratio, both [N]."""

    numerator: Array
    denominator: Array

    @property
    def metric(self) -> float:
        return _ratio(self.numerator.sum(), self.denominator.sum()).item()

    def rows(self, chosen: NDArray[Any]) -> "Outcome":
        """Return a part of the rows, by mask or by numbers."""
        return Outcome(self.numerator[chosen], self.denominator[chosen])


def of_accuracy(right: Iterable[bool]) -> Outcome:
    """Return the outcome whose metric is the share of rows that are right."""
    hits = np.array(list(right), np.float64)
    return Outcome(hits, np.ones_like(hits))


def of_f1(hits: Iterable[int], extra: Iterable[int], missed: Iterable[int]) -> Outcome:
    """Return the outcome whose metric is the micro-F1; counts by row. Where nothing was to be found and nothing was, it is 1."""
    tp, fp, fn = (np.array(list(counts), np.float64) for counts in (hits, extra, missed))
    return Outcome(2 * tp, 2 * tp + fp + fn)


@dataclass(frozen=True)
class Difference:
    """Candidate less current on the same rows, with the interval in which 95 % of the resamples lie."""

    rows: int
    current: float
    candidate: float
    difference: float
    low: float
    high: float


def compare(current: Outcome, candidate: Outcome, *, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """Bootstrap the difference of two models on the same rows. The same seed gives the same figures."""
    rows = len(current.numerator)
    if rows != len(candidate.numerator) or rows == 0:
        raise ValueError(f"expected the same rows for both, at least one; found {rows} and {len(candidate.numerator)}")
    draw = np.random.default_rng(seed)
    columns = np.stack([current.numerator, current.denominator, candidate.numerator, candidate.denominator], axis=1)
    found = []
    for start in range(0, resamples, _CHUNK):
        times = draw.multinomial(rows, np.full(rows, 1 / rows), size=min(_CHUNK, resamples - start))
        sums = times @ columns
        found.append(_ratio(sums[:, 2], sums[:, 3]) - _ratio(sums[:, 0], sums[:, 1]))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975]).tolist()
    before, after = current.metric, candidate.metric
    return Difference(rows, before, after, after - before, low, high)


def _ratio(above: Any, below: Any) -> Array:
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.where(below > 0, above / np.where(below > 0, below, 1), 1.0)


class Verdict(StrEnum):
    BETTER = "better"
    """The interval lies above zero."""
    WORSE = "worse"
    """More is lost than allowed, and it is no chance."""
    HELD = "held"
    UNPROVEN = "unproven"
    """A target that is not surely better."""


@dataclass(frozen=True)
class Comparison:
    """One set of one task, judged."""

    task: str
    set: str
    found: Difference
    allowance: float
    target: bool
    verdict: Verdict

    @property
    def passes(self) -> bool:
        return self.verdict in {Verdict.BETTER, Verdict.HELD}

    def figure(self) -> GateFigure:
        """Return it as it stands in a training event, rounded to six places."""
        d = self.found
        return GateFigure(
            task=self.task,
            set=self.set,
            rows=d.rows,
            current=round(d.current, 6),
            candidate=round(d.candidate, 6),
            difference=round(d.difference, 6),
            low=round(d.low, 6),
            high=round(d.high, 6),
            allowance=self.allowance,
            target=self.target,
            verdict=self.verdict.value,
        )


def judge(
    task: str, name: str, found: Difference, *, allowance: float = ALLOWANCE, target: bool = False, strict: bool = False
) -> Comparison:
    """Judge one set.

    Better: the whole interval is above zero. Worse: the difference is below -allowance and the whole interval is below
    zero, so that one row more or less of a small set decides nothing; `strict` asks for proof of the contrary instead:
    worse unless the whole interval is above -allowance. A target has to be better, on at least LEAST_ROWS rows.
    """
    # A rounding error is no difference.
    tiny = 1e-12
    lost = found.low < -allowance - tiny if strict else found.difference < -allowance - tiny and found.high < -tiny
    if lost:
        verdict = Verdict.WORSE
    elif found.low > tiny and (found.rows >= LEAST_ROWS or not target):
        verdict = Verdict.BETTER
    else:
        verdict = Verdict.UNPROVEN if target else Verdict.HELD
    return Comparison(task, name, found, allowance, target, verdict)


@dataclass(frozen=True)
class GateResult:
    """All comparisons. `passed` when no set is worse and every target is better; a gate without a target never passes."""

    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    """What could not be compared."""

    @property
    def passed(self) -> bool:
        return any(each.target for each in self.comparisons) and all(each.passes for each in self.comparisons)

    @property
    def reason(self) -> str:
        """What speaks against it, in a line; empty when it passed."""
        against = [f"{c.task} ({c.set}) {_said(c)}" for c in self.comparisons if not c.passes]
        if not any(each.target for each in self.comparisons):
            against.append("there are no held-out rows of the target")
        return "; ".join(against)

    def to_json(self) -> str:
        figures = [each.figure().model_dump() for each in self.comparisons]
        said = {"passed": self.passed, "reason": self.reason, "notes": self.notes, "figures": figures}
        return json.dumps(said, indent=2, ensure_ascii=False) + "\n"

    def to_markdown(self, about: Mapping[str, str]) -> str:
        return "\n".join(_report(self, about)) + "\n"


def from_json(text: str) -> GateResult:
    """Read what `to_json` wrote."""
    said = json.loads(text)
    figures = [GateFigure.model_validate(each) for each in said["figures"]]
    return GateResult(tuple(_from_figure(each) for each in figures), tuple(said.get("notes", ())))


def _from_figure(f: GateFigure) -> Comparison:
    found = Difference(f.rows, f.current, f.candidate, f.difference, f.low, f.high)
    return Comparison(f.task, f.set, found, f.allowance, f.target, Verdict(f.verdict))


def _said(c: Comparison) -> str:
    points = f"{100 * c.found.difference:+.2f} points [{100 * c.found.low:+.2f}, {100 * c.found.high:+.2f}]"
    if c.verdict is Verdict.WORSE:
        return f"is worse: {points}, allowed -{100 * c.allowance:g}"
    few = f" on {c.found.rows} rows, at least {LEAST_ROWS} are needed" if c.found.rows < LEAST_ROWS else ""
    return f"is not surely better: {points}{few}"


def _report(result: GateResult, about: Mapping[str, str]) -> Iterator[str]:
    yield f"# Gate: {'passed' if result.passed else 'refused'}"
    yield ""
    yield from (f"- {name}: {value}" for name, value in about.items())
    if result.reason:
        yield f"- refused because {result.reason}"
    yield from (f"- {note}" for note in result.notes)
    yield ""
    yield "Points of a hundred; accuracy, for several labels and for spans F1. The interval is that of the difference, 95 %,"
    yield f"{RESAMPLES:,} paired resamples. `served`: answered and right, or rightly withheld as out of scope. `held answers`:"
    yield "agreement with the current version."
    yield ""
    yield "| task | set | rows | current | candidate | difference | interval | allowed | |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | --- |"
    for c in result.comparisons:
        d = c.found
        yield (
            f"| {c.task} | {c.set} | {d.rows} | {100 * d.current:.2f} | {100 * d.candidate:.2f} | {100 * d.difference:+.2f} "
            f"| {100 * d.low:+.2f} to {100 * d.high:+.2f} | -{100 * c.allowance:g} "
            f"| {c.verdict.value}{' (target)' if c.target else ''} |"
        )
