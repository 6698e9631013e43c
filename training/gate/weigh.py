"""Both versions answer every set, and the gate judges."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ...runtime.model.model import Model
from ...runtime.wire.feedback import known_labels
from ...schemas.manifest import TaskSpec
from ..data.example import labels_of
from ..data.near_texts import near_form
from ..evaluate.evaluate import answers
from ..kinds.answers import Answer
from ..kinds.figures.outcome import of_accuracy
from ..kinds.registry import kind_of
from ..recipe.job import Gate
from .held_out import (
    CORRECTED,
    DRAWN,
    FEEDBACK,
    FROM_FEEDBACK,
    NEW_LABELS,
    PARTS_OF_FEEDBACK,
    HeldOutSet,
    conversations_of,
)
from .statistics import Difference, compare
from .verdict import Compared, Comparison, GateResult, Lift, SeedFigures, judge, judge_drawn, judge_gain, judge_target

AS_SERVED: Final = ", served"
"""Follows the name of a set."""
Versions = Mapping[tuple[str, str], int]
"""Task and set: how many versions the set has judged."""


@dataclass(frozen=True)
class Placebo:
    """A model that was trained as the candidate, without the corrections to known labels of some tasks."""

    model: Model
    tasks: Collection[str]


@dataclass(frozen=True)
class _Pair:
    """Both versions' answers to one set, without tokens. The shortest texts come first, for both in the same order."""

    held: HeldOutSet
    old: TaskSpec
    new: TaskSpec
    before: list[Answer]
    after: list[Answer]

    def wrong(self) -> list[bool]:
        """Return, by row, whether the current version is wrong."""
        return [kind_of(self.old).is_wrong(answer, self.old, self.held.scope) for answer in self.before]

    def right_now(self) -> list[bool]:
        """Return, by row, whether the candidate is right."""
        return [not kind_of(self.new).is_wrong(answer, self.new, self.held.scope) for answer in self.after]

    def compare_all(self) -> Difference:
        """Compare the shares of all rows that are right."""
        before = of_accuracy(not wrong for wrong in self.wrong())
        examples = [answer.example for answer in self.before]
        return compare(before, of_accuracy(self.right_now()), conversations_of(examples, self.held.group))

    def are_wrong(self, *, new_labels: bool) -> list[bool]:
        """Return, by row, whether the current version is wrong, of rows with new labels or of all others."""
        known = known_labels(self.old)
        return [
            wrong and (not set(labels_of(answer.example)) <= known) == new_labels
            for wrong, answer in zip(self.wrong(), self.before, strict=True)
        ]

    def compare_wrong(self, *, new_labels: bool) -> Difference:
        """Compare on the rows that the current version gets wrong, those with new labels or all others."""
        chosen = self.are_wrong(new_labels=new_labels)
        right = of_accuracy(self.right_now()).rows(np.array(chosen, bool))
        examples = [answer.example for answer, taken in zip(self.before, chosen, strict=True) if taken]
        return compare(of_accuracy([False] * len(examples)), right, conversations_of(examples, self.held.group))

    def compare_gain(self) -> Difference:
        """Compare by the kind's metric on the rows that the current version answers otherwise than people do."""
        taken = self.are_wrong(new_labels=False)
        before, after = (
            [answer for answer, wrong in zip(part, taken, strict=True) if wrong] for part in (self.before, self.after)
        )
        old = kind_of(self.old).outcome(before, self.old, self.held.scope)
        new = kind_of(self.new).outcome(after, self.new, self.held.scope)
        return compare(old, new, conversations_of([answer.example for answer in before], self.held.group))


@dataclass
class _Flips:
    """Rows without feedback which the current version gets wrong: whether the candidate is right, by the text's near form.

    Of a placebo all corrected rows, by their numbers: whether it is right.
    """

    right: dict[Hashable, bool] = field(default_factory=dict)
    placebo: bool = False

    def add(self, pair: _Pair) -> None:
        for answer, wrong, right in zip(pair.before, pair.wrong(), pair.right_now(), strict=True):
            if wrong:
                self.right[near_form(answer.example.given)] = right

    def as_lift(self, above: float) -> Lift:
        return Lift(sum(self.right.values()), len(self.right), above, self.placebo)


def weigh(
    current: Model,
    candidate: Model,
    sets: Iterable[HeldOutSet],
    gate: Gate,
    notes: Sequence[str] = (),
    versions: Versions | None = None,
    placebo: Placebo | None = None,
    others: Mapping[int, Model] | None = None,
) -> GateResult:
    """Let both answer every set, and judge.

    `versions`: how many each set has judged, this one included; else one. `others`: candidates of other seeds, by seed.
    """
    compared: list[Compared] = []
    corrected: list[tuple[HeldOutSet, Difference]] = []
    flips: dict[str, _Flips] = {}
    seeds: list[SeedFigures] = []
    gains: list[Comparison] = []
    for held in sets:
        pair = _answer(current, candidate, held)
        if held.target and (unit := kind_of(pair.old).gain_unit):
            gains.append(
                judge_gain(held.task, CORRECTED, pair.compare_gain(), least_rows=gate.least_corrections, unit=unit)
            )
        elif held.target and held.name == DRAWN:
            corrected.append((held, pair.compare_all()))
        elif held.target:
            corrected.append((held, pair.compare_wrong(new_labels=held.name == NEW_LABELS)))
        if held.target and held.name == FEEDBACK and placebo and held.task in placebo.tasks:
            flips[held.task] = _flips_of_placebo(pair, placebo.model)
        if held.name not in PARTS_OF_FEEDBACK:
            compared += _compare(pair, gate, versions or {})
            if others and not held.agreement:
                seeds.append(_figures_by_seed(pair, others))
        if held.name not in FROM_FEEDBACK and not held.agreement and not (placebo and held.task in placebo.tasks):
            flips.setdefault(held.task, _Flips()).add(pair)
    targets = [_judge_target(held, found, flips.get(held.task, _Flips()), gate) for held, found in corrected]
    return GateResult((*judge(compared, strict=gate.strict), *targets, *gains), tuple(notes), tuple(seeds))


def _flips_of_placebo(pair: _Pair, model: Model) -> _Flips:
    """Return, by corrected row, whether a model that was trained without the corrections is right."""
    spec, kind = model.tasks[pair.held.task], kind_of(model.tasks[pair.held.task])
    rows = zip(pair.are_wrong(new_labels=False), _ask(model, pair.held), strict=True)
    right = [not kind.is_wrong(answer, spec, pair.held.scope) for chosen, answer in rows if chosen]
    return _Flips(dict(enumerate(right)), placebo=True)


def _figures_by_seed(pair: _Pair, others: Mapping[int, Model]) -> SeedFigures:
    held, kind = pair.held, kind_of(pair.new)
    found = [kind.outcome(_ask(model, held), model.tasks[held.task], held.scope).metric for model in others.values()]
    return SeedFigures(held.task, held.name, (kind.outcome(pair.after, pair.new, held.scope).metric, *found))


def _answer(current: Model, candidate: Model, held: HeldOutSet) -> _Pair:
    old, new = (model.tasks[held.task] for model in (current, candidate))
    return _Pair(held, old, new, _ask(current, held), _ask(candidate, held))


def _ask(model: Model, held: HeldOutSet) -> list[Answer]:
    """Return a model's answers. Of a large set encodings and logits by token would take several GB."""
    given = answers(model, model.tasks[held.task], held.examples, as_served=True)
    return [answer.without_tokens() for answer in given]


def _compare(pair: _Pair, gate: Gate, versions: Versions) -> Iterator[Compared]:
    """Yield the set, and where answers are withheld the same rows as served."""
    held, old, new = pair.held, pair.old, pair.new
    judged = versions.get((held.task, held.name), 1)
    conversations = conversations_of([answer.example for answer in pair.before], held.group)
    kinds, both = (kind_of(old), kind_of(new)), ((pair.before, old), (pair.after, new))
    before, after = (kind.outcome(*each, held.scope) for kind, each in zip(kinds, both, strict=True))
    found = compare(before, after, conversations)
    allowance = gate.agreement_allowance if held.agreement else gate.allowances.get(held.task, gate.allowance)
    yield Compared(held.task, held.name, found, allowance, judged)
    others = [kind.further_outcomes(*each) for kind, each in zip(kinds, both, strict=True)]
    for name in (name for name in others[0] if name in others[1]):
        found, is_served = compare(others[0][name], others[1][name], conversations), name in kinds[1].served_outcomes
        allowed = max(allowance, gate.served_allowance) if is_served else allowance
        yield Compared(held.task, f"{held.name}, {name}", found, allowed, judged)
    served = [kind.outcome_as_served(*each, held.scope) for kind, each in zip(kinds, both, strict=True)]
    withheld = any(answer.output.get("abstained") for answer in (*pair.before, *pair.after))
    if withheld and served[0] is not None and served[1] is not None:
        found = compare(served[0], served[1], conversations)
        allowance = gate.agreement_allowance if held.agreement else gate.served_allowance
        yield Compared(held.task, f"{held.name}{AS_SERVED}", found, allowance, judged)


def _judge_target(held: HeldOutSet, found: Difference, flips: _Flips, gate: Gate) -> Comparison:
    if held.name == NEW_LABELS:
        return judge_target(held.task, NEW_LABELS, found, least_rows=gate.least_new_rows)
    if held.name == DRAWN:
        return judge_drawn(held.task, DRAWN, found)
    assert held.name == FEEDBACK
    lift = flips.as_lift(gate.least_lift)
    return judge_target(held.task, CORRECTED, found, least_rows=gate.least_corrections, lift=lift)


def metrics_by_set(result: GateResult) -> Mapping[str, Mapping[str, float]]:
    """Return the metric of both versions by `task/set`, for the event."""
    return {
        f"{each.task}/{each.set}": {"current": each.found.current, "candidate": each.found.candidate}
        for each in result.comparisons
    }
