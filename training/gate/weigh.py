"""Both versions answer every set, and the gate judges."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ...runtime.model.model import Model
from ...runtime.wire.feedback import known_labels
from ...schemas.manifest import TaskSpec
from ..data.example import labels_of
from ..evaluate.evaluate import answers
from ..kinds.answers import Answer
from ..kinds.outcome import of_accuracy
from ..kinds.registry import kind_of
from ..recipe.job import Gate
from .held_out import CORRECTED, FEEDBACK, FROM_FEEDBACK, NEW_LABELS, HeldOutSet, conversations_of
from .statistics import Difference, compare
from .verdict import Compared, Comparison, GateResult, Lift, judge, judge_target

AS_SERVED: Final = ", served"
"""Follows the name of a set."""
Versions = Mapping[tuple[str, str], int]
"""Task and set: how many versions the set has judged."""


@dataclass(frozen=True)
class _Pair:
    """Both versions' answers to one set. `answers` gives the shortest texts first, for both in the same order."""

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

    def compare_wrong(self, *, new_labels: bool) -> Difference:
        """Compare on the rows that the current version gets wrong, those with new labels or all others."""
        known = known_labels(self.old)
        chosen = [
            wrong and (not set(labels_of(answer.example)) <= known) == new_labels
            for wrong, answer in zip(self.wrong(), self.before, strict=True)
        ]
        right = of_accuracy(self.right_now()).rows(np.array(chosen, bool))
        examples = [answer.example for answer, taken in zip(self.before, chosen, strict=True) if taken]
        return compare(of_accuracy([False] * len(examples)), right, conversations_of(examples, self.held.group))


@dataclass
class _Flips:
    """Rows without feedback which the current version gets wrong, by text: whether the candidate is right."""

    right: dict[str, bool] = field(default_factory=dict)

    def add(self, pair: _Pair) -> None:
        for answer, wrong, right in zip(pair.before, pair.wrong(), pair.right_now(), strict=True):
            if wrong:
                self.right[answer.example.text] = right

    def as_lift(self, above: float) -> Lift:
        return Lift(sum(self.right.values()), len(self.right), above)


def weigh(
    current: Model,
    candidate: Model,
    sets: Iterable[HeldOutSet],
    gate: Gate,
    notes: Sequence[str] = (),
    versions: Versions | None = None,
) -> GateResult:
    """Let both answer every set, and judge. `versions`: how many each set has judged, this one included; else one."""
    compared: list[Compared] = []
    corrected: list[tuple[HeldOutSet, Difference]] = []
    flips: dict[str, _Flips] = {}
    for held in sets:
        pair = _answer(current, candidate, held)
        if held.target:
            corrected.append((held, pair.compare_wrong(new_labels=held.name == NEW_LABELS)))
        if held.name != NEW_LABELS:
            compared += _compare(pair, gate, versions or {})
        if held.name not in FROM_FEEDBACK and not held.agreement:
            flips.setdefault(held.task, _Flips()).add(pair)
    targets = [_judge_target(held, found, flips.get(held.task, _Flips()), gate) for held, found in corrected]
    return GateResult((*judge(compared, strict=gate.strict), *targets), tuple(notes))


def _answer(current: Model, candidate: Model, held: HeldOutSet) -> _Pair:
    old, new = (model.tasks[held.task] for model in (current, candidate))
    before, after = (list(answers(model, model.tasks[held.task], held.examples)) for model in (current, candidate))
    return _Pair(held, old, new, before, after)


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
    served = [kind.outcome_as_served(*each, held.scope) for kind, each in zip(kinds, both, strict=True)]
    withheld = any(answer.output.get("abstained") for answer in (*pair.before, *pair.after))
    if withheld and served[0] is not None and served[1] is not None:
        found = compare(served[0], served[1], conversations)
        allowance = gate.agreement_allowance if held.agreement else gate.served_allowance
        yield Compared(held.task, f"{held.name}{AS_SERVED}", found, allowance, judged)


def _judge_target(held: HeldOutSet, found: Difference, flips: _Flips, gate: Gate) -> Comparison:
    if held.name == NEW_LABELS:
        return judge_target(held.task, NEW_LABELS, found, least_rows=gate.least_new_rows)
    assert held.name == FEEDBACK
    lift = flips.as_lift(gate.least_lift)
    return judge_target(held.task, CORRECTED, found, least_rows=gate.least_corrections, lift=lift)


def metrics_by_set(result: GateResult) -> Mapping[str, Mapping[str, float]]:
    """Return the metric of both versions by `task/set`, for the event."""
    return {
        f"{each.task}/{each.set}": {"current": each.found.current, "candidate": each.found.candidate}
        for each in result.comparisons
    }
