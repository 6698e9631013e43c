"""The gate: may a retrained model take the current one's place? Verdicts over what both answered on the same rows. Pure."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import TypeAdapter

from ...schemas.training_event import GateFigure
from .statistics import Difference, smallest_loss

ALLOWANCE: Final = 0.005
FAMILY_ERROR: Final = 0.05
"""Of candidates that lost nothing at most this share is refused, however many sets there are."""
TARGET_ERROR: Final = 0.025
"""The greatest one-sided p of a target."""
LEAST_DISCORDANT: Final = 6
"""With fewer rows on which the two models differ not even one that wins them all has p <= 0.025."""
_TINY: Final = 1e-12
"""A rounding error is no difference."""


class Verdict(StrEnum):
    BETTER = "better"
    """Of a target: proven. Of another set: p <= 0.025, for information."""
    WORSE = "worse"
    """More is lost than allowed, and chance does not explain it."""
    HELD = "held"
    UNPROVEN = "unproven"
    """A target that is not proven to be better."""


@dataclass(frozen=True)
class Compared:
    """One set of one task, not judged yet."""

    task: str
    set: str
    found: Difference
    allowance: float = ALLOWANCE
    versions: int = 1
    """How many versions the set has judged, this one included."""


@dataclass(frozen=True)
class Lift:
    """What corrections must exceed, because they are chosen for being wrong: any other model is right on some of them."""

    flipped: int
    """Rows without feedback which the current version gets wrong, and the candidate right; of a placebo the corrected
    rows which it gets right."""
    rows: int
    """All rows without feedback which the current version gets wrong; of a placebo all corrected ones."""
    above: float
    """The share of corrected rows now right must exceed the share of flipped ones by this."""
    placebo: bool = False
    """Compared with a model that was trained in the same way without the corrections."""

    @property
    def rate(self) -> float:
        return self.flipped / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Comparison:
    """One set of one task, judged."""

    task: str
    set: str
    found: Difference
    allowance: float
    verdict: Verdict
    target: bool = False
    p: float | None = None
    """For a loss, corrected for the number of sets (Holm); of a target for a gain, uncorrected."""
    detectable: float | None = None
    """The smallest loss that would have been found with a probability of 80 %; None when none would."""
    versions: int = 1
    lift: Lift | None = None
    least_rows: int = 0
    drawn: bool = False
    """A target of rows that were drawn at random: accuracy on traffic, and enough of a proof for its task."""
    unit: str = ""
    """A target of corrections that are not just right or wrong: what is compared on them, `BLEU` of replies."""

    @property
    def passes(self) -> bool:
        return self.verdict in {Verdict.BETTER, Verdict.HELD}

    def figure(self) -> GateFigure:
        """Return it as in a training event, rounded to six places."""
        d, lift = self.found, self.lift
        return GateFigure(
            task=self.task,
            set=self.set,
            rows=d.rows,
            conversations=d.conversations,
            discordant=d.discordant,
            current=round(d.current, 6),
            candidate=round(d.candidate, 6),
            difference=round(d.difference, 6),
            low=round(d.low, 6),
            high=round(d.high, 6),
            allowance=self.allowance,
            target=self.target,
            verdict=self.verdict.value,
            p=None if self.p is None else round(self.p, 6),
            detectable=None if self.detectable is None else round(self.detectable, 6),
            versions=self.versions,
            flipped=lift.flipped if lift else None,
            flip_rows=lift.rows if lift else None,
        )


def judge(sets: Sequence[Compared], *, strict: bool = False) -> list[Comparison]:
    """Judge all sets that must not become worse, as one family.

    Worse: the loss exceeds the allowance, and its p is significant at 5 % for the family of all sets (Holm 1979). With
    `strict` a set is worse unless its whole interval lies above -allowance, uncorrected. The smallest detectable loss is
    that at the first step of Holm's procedure, the hardest one.
    """
    adjusted = holm([each.found.p_worse for each in sets])
    level = FAMILY_ERROR / max(1, len(sets))
    found = []
    for each, p in zip(sets, adjusted, strict=True):
        d = each.found
        lost = d.difference < -each.allowance - _TINY and p <= FAMILY_ERROR
        if strict:
            lost = d.low < -each.allowance - _TINY
        held = Verdict.BETTER if d.p_better <= TARGET_ERROR else Verdict.HELD
        verdict = Verdict.WORSE if lost else held
        detectable = smallest_loss(d, level, each.allowance)
        found.append(Comparison(each.task, each.set, d, each.allowance, verdict, False, p, detectable, each.versions))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values: one is significant for the family when it is at most the family's error rate."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted, highest = [1.0] * len(p_values), 0.0
    for step, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def judge_drawn(task: str, name: str, found: Difference) -> Comparison:
    """Judge rows that were drawn at random; the metric is the share of them that is right. Better: p <= 0.025."""
    verdict = Verdict.BETTER if found.p_better <= TARGET_ERROR else Verdict.UNPROVEN
    return Comparison(task, name, found, 0.0, verdict, True, found.p_better, drawn=True)


def judge_target(task: str, name: str, found: Difference, *, least_rows: int, lift: Lift | None = None) -> Comparison:
    """Judge corrected rows; the metric is the share of them that is right.

    Better: at least `least_rows` rows, at least LEAST_DISCORDANT of them answered differently, p <= 0.025 and, with
    `lift`, so many points above the share of other wrong rows that are right now.
    """
    enough = found.rows >= least_rows and found.discordant >= LEAST_DISCORDANT
    above = lift is None or (lift.rows > 0 and found.difference - lift.rate >= lift.above - _TINY)
    verdict = Verdict.BETTER if enough and above and found.p_better <= TARGET_ERROR else Verdict.UNPROVEN
    return Comparison(task, name, found, 0.0, verdict, True, found.p_better, lift=lift, least_rows=least_rows)


def judge_gain(task: str, name: str, found: Difference, *, least_rows: int, unit: str) -> Comparison:
    """Judge what people worded otherwise, by how near both versions come to it.

    Better: at least `least_rows` rows, at least LEAST_DISCORDANT of them scored differently, and p <= 0.025. A correction is
    near to the reply that it was made of, so that another model does not come nearer to it by chance.
    """
    enough = found.rows >= least_rows and found.discordant >= LEAST_DISCORDANT
    verdict = Verdict.BETTER if enough and found.p_better <= TARGET_ERROR else Verdict.UNPROVEN
    return Comparison(task, name, found, 0.0, verdict, True, found.p_better, least_rows=least_rows, unit=unit)


@dataclass(frozen=True)
class SeedFigures:
    """One set's metric of candidates that differ in the seed of their training alone, the candidate's first."""

    task: str
    set: str
    metrics: tuple[float, ...]


@dataclass(frozen=True)
class ChangedAnswers:
    """The texts of one task on which the least sure decision of the current version has a probability from `low` to `high`."""

    task: str
    low: float
    high: float
    texts: int
    changed: int
    """Answered otherwise, withheld or not: another label, other labels, other spans."""
    withheld: int
    """Withheld now and not before, or the reverse."""


@dataclass(frozen=True)
class GateResult:
    """All comparisons. `passed` when no set is worse and every target is better; a gate without a target never passes.

    Of a task with rows that were drawn at random these are enough, or all its other targets without them.
    """

    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    """What could not be compared."""
    seeds: tuple[SeedFigures, ...] = ()
    """Empty when the candidate was trained with one seed alone."""
    changed: tuple[ChangedAnswers, ...] = ()
    """Of tasks with held answers, by how sure the current version was. No vote."""

    @property
    def passed(self) -> bool:
        return bool(self.targets) and self.nothing_lost and not self._unproven_tasks

    @property
    def _unproven_tasks(self) -> set[str]:
        """Return the tasks that are not proven to be better."""
        unproven = set()
        for task in {each.task for each in self.targets}:
            drawn = [each.passes for each in self.targets if each.task == task and each.drawn]
            others = [each.passes for each in self.targets if each.task == task and not each.drawn]
            if not any(drawn) and not (others and all(others)):
                unproven.add(task)
        return unproven

    @property
    def nothing_lost(self) -> bool:
        """Whether no set is worse."""
        return all(each.passes for each in self.comparisons if not each.target)

    @property
    def targets(self) -> tuple[Comparison, ...]:
        return tuple(each for each in self.comparisons if each.target)

    @property
    def reason(self) -> str:
        """The objections in a line; empty when it passed."""
        unproven = self._unproven_tasks
        against = [
            f"{c.task} ({c.set}) {describe_objection(c)}"
            for c in self.comparisons
            if not c.passes and (not c.target or c.task in unproven)
        ]
        if not self.targets:
            against.append("there are no held-out rows of the target")
        return "; ".join(against)

    def to_json(self) -> str:
        figures = [each.figure().model_dump() for each in self.comparisons]
        document: dict[str, Any] = {
            "passed": self.passed,
            "reason": self.reason,
            "notes": self.notes,
            "figures": figures,
        }
        document["seeds"] = [asdict(each) for each in self.seeds]
        document["changed"] = [asdict(each) for each in self.changed]
        document["comparisons"] = _COMPARISONS.dump_python(self.comparisons, mode="json")
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


_COMPARISONS: Final = TypeAdapter(tuple[Comparison, ...])


def from_json(text: str) -> GateResult:
    """Read what `to_json` wrote."""
    document = json.loads(text)
    seeds = tuple(SeedFigures(**each | {"metrics": tuple(each["metrics"])}) for each in document["seeds"])
    comparisons = _COMPARISONS.validate_python(document["comparisons"], strict=False)
    changed = tuple(ChangedAnswers(**each) for each in document.get("changed", ()))
    return GateResult(comparisons, tuple(document["notes"]), seeds, changed)


def describe_objection(c: Comparison) -> str:
    """Return why a comparison does not pass."""
    d = c.found
    if c.verdict is Verdict.WORSE:
        points = f"{100 * d.difference:+.2f} points [{100 * d.low:+.2f}, {100 * d.high:+.2f}]"
        return f"is worse: {points}, allowed -{100 * c.allowance:g}"
    if c.drawn:
        shares = f"{100 * d.current:.1f} % of {d.rows} were right, {100 * d.candidate:.1f} % are now"
        return f"is not proven to be better: {shares}, p = {d.p_better:.3g}, at most {TARGET_ERROR:g} is proof"
    right = f"is not proven to be better: {round(d.candidate * d.rows)} of {d.rows} corrected rows are right now"
    if c.unit:
        right = f"is not proven to be better: {c.unit} of {d.rows} corrected rows was {100 * d.current:.1f}, is {100 * d.candidate:.1f}"
    if d.rows < c.least_rows:
        return f"{right}, at least {c.least_rows} rows are needed"
    if d.discordant < LEAST_DISCORDANT:
        return f"{right}, the versions differ on {d.discordant}, at least {LEAST_DISCORDANT} are needed"
    if c.lift is not None and d.difference - c.lift.rate < c.lift.above - _TINY:
        other = f"so are {c.lift.flipped} of {c.lift.rows} rows that nobody corrected"
        if c.lift.placebo:
            other = f"a model trained without the corrections has {c.lift.flipped} of them right"
        return f"{right}, and {other}: at least {100 * c.lift.above:g} points more are needed"
    return f"{right}, p = {d.p_better:.3g}, at most {TARGET_ERROR:g} is proof"
