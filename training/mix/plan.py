"""Feedback and what must not be forgotten: which rows a retraining sees again, and which measure it.

A task with old data replays a share of it. A task without is held on to by the current version's answers on the new
texts, and on whatever texts the job names. What earlier retrainings learned from is seen again with either.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256

from ...runtime.errors import SetupError
from ...runtime.model.inputs import Input, plain_key
from ...runtime.wire.feedback import known_labels
from ...schemas.manifest import ModelManifest
from ..data.example import Example, near_forms
from ..data.near_texts import near_form
from ..kinds.registry import kind_of
from ..prepare.format_keys import describe_unused_keys
from ..prepare.tasks import TaskData, read_tasks
from ..recipe.job import Job
from ..recipe.recipe import Recipe, load_recipe
from .balance import count, replayed
from .calibration_rows import LEAST_TRAFFIC, CalibrationRows, choose_calibration_rows, learned_rows
from .corrections import Corrections
from .earlier import Earlier, read_earlier
from .hold_texts import all_texts
from .recipe import describe_dropped_keys
from .traffic import drawn_at_random, may_calibrate


@dataclass(frozen=True)
class Mix:
    """What goes into a run. `old` are the tasks that have data of their own."""

    job: Job
    manifest: ModelManifest
    corrections: Mapping[str, Corrections]
    recipe: Recipe | None
    old: Mapping[str, TaskData]
    earlier: Mapping[str, Earlier] = field(default_factory=dict)

    def replayed(self, name: str) -> list[Example]:
        """Return the old rows of a task that are seen again: a share of its data and of what earlier runs learned from."""
        assert self.job.old is not None
        pool = [*self.old[name].train, *self.taught_earlier(name)]
        return replayed(pool, self.job.old.replay, self.replay_seed)

    @property
    def replay_seed(self) -> int:
        """Another one for each version and each feedback, so that in time every old row is seen again."""
        texts = sorted(plain_key(example.given) for each in self.corrections.values() for example in each.train)
        key = json.dumps([self.job.fit.seed, self.manifest.name, self.manifest.version, texts])
        return int.from_bytes(sha256(key.encode()).digest()[:8], "big")

    @cached_property
    def judged(self) -> frozenset[bytes]:
        """The near forms of all texts that people judged, now or earlier: old rows with these texts are superseded."""
        parts = [part for each in self.corrections.values() for part in (each.train, each.heldout)]
        parts += [part for each in self.earlier.values() for part in (each.train, each.heldout)]
        return near_forms(example for part in parts for example in part)

    def without_judged(self, examples: Iterable[Example]) -> list[Example]:
        """Return the rows whose texts nobody judged, in whatever spelling and for whatever task."""
        return [example for example in examples if near_form(example.given) not in self.judged]

    @cached_property
    def reworded(self) -> frozenset[str]:
        """The acts, in words, to which people worded at least `feedback.least_rows` replies, now or earlier."""
        taught = [each.train for part in (self.corrections, self.earlier) for each in part.values()]
        counted = Counter(example.text for rows in taught for example in rows if example.reply is not None)
        return frozenset(acts for acts, rows in counted.items() if acts and rows >= self.job.feedback.least_rows)

    def without_superseded(self, examples: Iterable[Example]) -> list[Example]:
        """Return the rows to measure by: those whose texts nobody judged, and of replies those to acts that are not `reworded`."""
        rows = self.without_judged(examples)
        return [example for example in rows if example.reply is None or example.text not in self.reworded]

    def traffic(self, name: str) -> list[Example]:
        """Return the held-out rows of a task that were drawn at random and calibrate; none where they are few."""
        return self._traffic.get(name, [])

    @cached_property
    def _traffic(self) -> dict[str, list[Example]]:
        found = {}
        for spec in self.manifest.tasks:
            judged = [part[spec.name].heldout for part in (self.corrections, self.earlier) if spec.name in part]
            rows = [each for heldout in judged for each in drawn_at_random(heldout) if may_calibrate(each)]
            found[spec.name] = rows if len(rows) >= LEAST_TRAFFIC else []
        return found

    def to_judge(self, name: str, heldout: Sequence[Example]) -> list[Example]:
        """Return the held-out rows of a task but those that calibrate: they are no evidence in the gate."""
        taken = near_forms(self.traffic(name))
        return [example for example in heldout if near_form(example.given) not in taken]

    def calibration_rows(self, name: str, held_back: Sequence[Example] = ()) -> CalibrationRows:
        """Return what calibration and thresholds of a task are chosen on; `held_back` are the feedback's rows to validate on."""
        if kind_of(self.manifest.task(name)).generates:
            return CalibrationRows()
        new = [each for each in held_back if self.corrections[name].is_new(each)]
        learned = learned_rows(self.manifest, name) > 0
        return choose_calibration_rows(self.old.get(name), self.traffic(name), new, learned=learned)

    @cached_property
    def kept_limits(self) -> dict[str, str]:
        """By task that keeps calibration and thresholds of the current version: why."""
        found = {spec.name: self.calibration_rows(spec.name) for spec in self.manifest.tasks}
        return {name: each.reason_to_keep for name, each in found.items() if each.reason_to_keep}

    @cached_property
    def unused_keys(self) -> list[str]:
        """A line for each key without effect in the old recipe, which was left out, and one for those that the job decides."""
        if not self.recipe or not self.job.old:
            return []
        dropped = describe_dropped_keys(self.job, self.manifest, self.recipe, self.untaught)
        return [*describe_unused_keys(self.recipe, self.job.old.folder), *dropped]

    @cached_property
    def untaught(self) -> list[str]:
        """The tasks that generate and have no rows: their decoders stay as they are."""
        taught = {name for name, each in self.corrections.items() if each.train} | {*self.old}
        generating = [spec.name for spec in self.manifest.tasks if kind_of(spec).generates]
        return [name for name in generating if name not in taught and not self.taught_earlier(name)]

    def taught_earlier(self, name: str) -> list[Example]:
        return self.earlier[name].train if name in self.earlier else []

    def texts(self) -> list[Input]:
        """Return the texts on which the current version's answers are kept, or measured."""
        return all_texts(self.corrections, self.job.hold.texts)


def plan_mix(job: Job, manifest: ModelManifest, corrections: Mapping[str, Corrections]) -> Mix:
    """Read the old data and check it against the model: SetupError before anything starts."""
    if job.old is None:
        return Mix(job, manifest, corrections, None, {})
    earlier = read_earlier(job.old.feedback, manifest, corrections)
    if job.old.recipe is None:
        return Mix(job, manifest, corrections, None, {}, earlier)
    recipe = load_recipe(job.old.recipe, past=True)
    has = {spec.name for spec in manifest.tasks}
    if lacking := [name for name in recipe.tasks if name not in has]:
        raise SetupError(f"{job.old.recipe}: tasks.{lacking[0]}: the current version has no such task")
    read = {data.name: data for data in read_tasks(recipe, job.old.folder)}
    for name, data in read.items():
        known = set(manifest.task(name).labels)
        if unknown := [label for label in data.labels if label not in known]:
            raise SetupError(
                f"{job.old.recipe}: tasks.{name}: the current version has no label {unknown[0]!r}; it is not the recipe "
                "that this version was made by"
            )
    mix = Mix(job, manifest, corrections, recipe, read, earlier)
    return replace(mix, old={name: _without_judged(mix, data) for name, data in read.items()})


def _without_judged(mix: Mix, data: TaskData) -> TaskData:
    """An old label beside a person's would teach both, and a text that is trained on measures nothing."""
    return replace(
        data,
        train=mix.without_judged(data.train),
        validation=mix.without_superseded(data.validation),
        outside=mix.without_judged(data.outside),
        test=mix.without_superseded(data.test),
        choosing=mix.without_judged(data.choosing),
        calibration=mix.without_judged(data.calibration),
    )


def without_rows(mix: Mix) -> tuple[str, str] | None:
    """Return a task with old data and a label of its that no row would teach any more; None when there is none.

    A label that the old recipe itself names without having rows of it was never learned.
    """
    for name, data in mix.old.items():
        feedback = mix.corrections.get(name)
        taught = count([*(feedback.train if feedback else ()), *mix.replayed(name)])
        lost = known_labels(mix.manifest.task(name)) - known_labels(data.spec) - set(taught)
        if lost:
            return name, min(lost)
    return None
