"""What the gate must be able to see before anything is trained: that something became better, and nothing worse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ...runtime.errors import SetupError
from ...runtime.model.model import Model
from ...runtime.settings.yaml_file import Place, YamlFile
from ..data.example import Example, near_forms
from ..evaluate.evaluate import answers
from ..kinds.registry import kind_of
from ..mix.corrections import TooLittleFeedback
from ..mix.plan import Mix
from ..mix.traffic import drawn_at_random
from ..recipe.job import Gate, Job
from .held_out import (
    CORRECTED,
    DRAWN,
    FEEDBACK,
    FROM_FEEDBACK,
    NEW_LABELS,
    PARTS_OF_FEEDBACK,
    HeldOutSet,
    scope_of,
)

LEAST_TEXTS: Final = 10
"""So many texts that are right now could show that something was forgotten."""


class Targets(NamedTuple):
    """What must become better: by task CORRECTED, NEW_LABELS and DRAWN, and what cannot be a target."""

    sets: dict[str, list[str]]
    notes: list[str]
    placebo: Sequence[str] = ()
    """Tasks whose corrections are judged by a model that was trained without them."""


@dataclass(frozen=True)
class _Evidence:
    """The held-out texts of one task on which an improvement could be proven; equal ones, in whatever spelling, count once."""

    heldout: int
    new: int
    corrected: int
    """Texts that the current version gets wrong although it knows their labels."""
    flippable: int
    """Texts without feedback that the current version gets wrong, counted up to the number needed."""
    drawn: int = 0
    """Texts that were drawn at random."""
    drawn_wrong: int = 0
    """Those of them that the current version gets wrong, also with new labels."""
    can_train_without: bool = True
    """Whether the task has rows to train on beside its corrections."""
    by_gain: bool = False
    """Corrections are judged by how near both versions come to them: nothing is right by chance."""

    @property
    def wrong(self) -> int:
        return self.new + self.corrected

    def sets(self, gate: Gate) -> list[str]:
        """Return the sets that can be targets."""
        new = [NEW_LABELS] if self.new >= gate.least_new_rows else []
        if self.drawn_wrong >= gate.least_drawn_wrong:
            return [DRAWN, *new]
        judged = self.corrected >= gate.least_corrections and not self.lacks_flips(gate)
        return [*new, *([CORRECTED] if judged else [])]

    def needs_placebo(self, gate: Gate) -> bool:
        return not self.by_gain and CORRECTED in self.sets(gate) and self.flippable < gate.least_flip_rows

    def lacks(self, gate: Gate) -> list[str]:
        """Return, in words, what is missing for each set that is none, if there is a row of it at all."""
        found: list[str] = []
        if self.drawn_wrong >= gate.least_drawn_wrong:
            return found
        if self.drawn:
            found.append(
                f"{self.drawn} texts drawn at random, of which the current version gets {self.drawn_wrong} wrong; "
                f"{gate.least_drawn_wrong} wrong ones are needed"
            )
        if 0 < self.new < gate.least_new_rows:
            found.append(f"{self.new} held-out texts with new labels, {gate.least_new_rows} are needed")
        if 0 < self.corrected < gate.least_corrections:
            found.append(f"{self.corrected} held-out corrections to known labels, {gate.least_corrections} are needed")
        elif self.lacks_flips(gate):
            found.append(
                f"{self.flippable} texts without feedback that the current version gets wrong, {gate.least_flip_rows} are "
                f"needed to judge {self.corrected} corrections to known labels: another model is right on some of them by "
                "chance; name labelled rows in gate.reports, old data, or usual texts in hold.texts"
            )
        return found

    def lacks_flips(self, gate: Gate) -> bool:
        """Return whether nothing tells how many corrections become right by chance, and no placebo could."""
        few = self.corrected >= gate.least_corrections and self.flippable < gate.least_flip_rows
        return few and not self.can_train_without and not self.by_gain


def find_targets(file: YamlFile[Job], current: Model, mix: Mix, sets: Sequence[HeldOutSet]) -> Targets:
    """Return what has to become better: of the tasks that the job names, else of all, each set with enough rows.

    TooLittleFeedback when there is none, or none of a task that was named: nothing could pass the gate. SetupError when
    more feedback would not help: rows without feedback are missing to judge corrections by, or none of the `sets`, held
    answers included, would show that a task which is trained on feedback forgets the rest.
    """
    gate = file.value.gate
    evidence = {task: _find_evidence(current, mix, task, sets, gate) for task in mix.corrections}
    named = gate.target
    chosen = _all_with_evidence(file, evidence) if named is None else _check_named(file, named, evidence)
    if not gate.allow_unmeasured:
        _refuse_unmeasured(file, evidence, sets)
    notes = [f"{task}: {each}: not judged" for task in chosen for each in evidence[task].lacks(gate)]
    placebo = [task for task in chosen if evidence[task].needs_placebo(gate)]
    return Targets({task: evidence[task].sets(gate) for task in chosen}, notes, placebo)


def _find_evidence(current: Model, mix: Mix, task: str, sets: Sequence[HeldOutSet], gate: Gate) -> _Evidence:
    each, spec, scope = mix.corrections[task], current.tasks[task], scope_of(mix, task)
    judging = mix.to_judge(task, each.heldout)
    new = [example for example in judging if each.is_new(example)]
    known = [example for example in judging if not each.is_new(example)]

    def count_wrong(examples: Sequence[Example]) -> int:
        given = answers(current, spec, examples)
        return len(near_forms(a.example for a in given if kind_of(spec).is_wrong(a, spec, scope)))

    corrected = count_wrong(known)
    flippable = 0
    by_gain = bool(kind_of(spec).gain_unit)
    if corrected >= gate.least_corrections and not by_gain:
        flippable = _count_flippable(current, task, sets, gate.least_flip_rows)
    drawn = [] if by_gain else drawn_at_random(judging)
    replays = mix.job.old is not None and mix.job.old.replay > 0
    can_train = replays if task in mix.old else bool(mix.job.hold.texts)
    texts, new_texts, drawn_texts = (len(near_forms(part)) for part in (judging, new, drawn))
    return _Evidence(texts, new_texts, corrected, flippable, drawn_texts, count_wrong(drawn), can_train, by_gain)


def _count_flippable(current: Model, task: str, sets: Sequence[HeldOutSet], most: int) -> int:
    """Count the texts of sets without feedback that the current version gets wrong, up to `most`."""
    spec, texts = current.tasks[task], set[bytes]()
    for held in sets:
        if held.task == task and held.name not in FROM_FEEDBACK and not held.agreement:
            given = answers(current, spec, held.examples)
            texts |= near_forms(each.example for each in given if kind_of(spec).is_wrong(each, spec, held.scope))
    return min(most, len(texts))


def _check_named(file: YamlFile[Job], tasks: Sequence[str], evidence: Mapping[str, _Evidence]) -> list[str]:
    gate = file.value.gate
    if not tasks:
        raise file.refusal(("gate", "target"), "expected at least one task; leave it out for those that were corrected")
    for at, task in enumerate(tasks):
        each = evidence.get(task, _Evidence(0, 0, 0, 0))
        if not each.sets(gate):
            lacks = "; ".join(each.lacks(gate)) or (
                f"of {each.heldout} held-out texts the current version gets none wrong; {gate.least_corrections} "
                f"corrections to known labels, or {gate.least_new_rows} to new ones, are needed"
            )
            message = f"task {task} could not be shown to become better: {lacks}"
            raise _refuse(file, ("gate", "target", at), message, each.lacks_flips(gate))
    return list(tasks)


def _all_with_evidence(file: YamlFile[Job], evidence: Mapping[str, _Evidence]) -> list[str]:
    gate = file.value.gate
    if found := [task for task, each in evidence.items() if each.sets(gate)]:
        return found
    lacks = [f"{task}: {'; '.join(each.lacks(gate))}" for task, each in evidence.items() if each.lacks(gate)]
    missing = "; ".join(lacks) or "the current version is wrong on no row that the feedback holds out"
    flips = any(each.lacks_flips(gate) for each in evidence.values())
    raise _refuse(file, ("feedback",), f"no task could be shown to become better: {missing}", flips)


def _refuse(file: YamlFile[Job], place: Place, message: str, more_rows_help: bool) -> SetupError:
    """Return the error: something to put right where rows without feedback are missing, else too little feedback."""
    if more_rows_help:
        return file.refusal(place, message)
    advice = "gather more corrections, raise feedback.ingest.heldout, or name gate.target"
    return TooLittleFeedback(str(file.refusal(place, f"{message}; {advice}")))


def _refuse_unmeasured(file: YamlFile[Job], evidence: Mapping[str, _Evidence], sets: Sequence[HeldOutSet]) -> None:
    """What was new or wrong before says nothing of what may be lost: only other texts do."""
    for task, each in evidence.items():
        others = [held for held in sets if held.task == task and held.name not in {FEEDBACK, *PARTS_OF_FEEDBACK}]
        texts = len(near_forms(e for held in others for e in held.examples)) + each.heldout - each.wrong
        if texts < LEAST_TEXTS:
            raise file.refusal(
                ("feedback",),
                f"nothing would show what task {task} forgets: {texts} texts held out that it gets right now, "
                f"{LEAST_TEXTS} are needed; name usual texts in hold.texts, labelled ones in gate.reports, old data, or "
                "set gate.allow_unmeasured: true",
            )
