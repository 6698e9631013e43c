"""Feedback and what must not be forgotten become one recipe with its data, in a folder of their own.

A task with old data replays a share of it. A task without is held on to by the current version's answers on the new
texts, and on whatever texts the job names. What earlier retrainings learned from is seen again with either.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import yaml

from ...runtime.agent.default_agents import listed_agents
from ...runtime.errors import SetupError
from ...runtime.model.inputs import Input, plain_key
from ...runtime.wire.feedback import known_labels
from ...schemas.manifest import ModelManifest, TaskSpec
from ..data.example import Example, near_forms
from ..data.near_texts import near_form
from ..kinds.registry import kind_of
from ..prepare.format_keys import describe_unused_keys
from ..prepare.tasks import TaskData, read_tasks
from ..recipe.job import Job
from ..recipe.reading import Reading
from ..recipe.recipe import Recipe, load_recipe
from .balance import by_repeats, count, divided, replayed
from .calibration_rows import LEAST_TRAFFIC, CalibrationRows, choose_calibration_rows, learned_rows
from .corrections import Corrections, write_rows
from .earlier import Earlier, read_earlier
from .hold_texts import CurrentAnswers, all_texts
from .traffic import drawn_at_random, may_calibrate

RECIPE: Final = "recipe.yaml"
_NOT_KEPT: Final[dict[str, Any]] = {"tasks": True, "lora": True, "threads": True, "budget": {"epochs", "steps"}}
"""Keys of the recipe before that a job decides, also by leaving them out. All others are carried on."""
_NOT_KEPT_OF_TASK: Final = set(Reading.model_fields) | {
    *("train", "validation", "validation_share", "calibration", "group", "test", "reports", "thresholds", "epochs")
}
"""Keys of a task that belong to its data, which is mixed anew, and its passes, which the job decides."""
_NO_ROWS: Final = ("validation", "calibration", "choosing")
"""Parts that are not trained on."""


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
        """Return what temperature and thresholds of a task are chosen on; `held_back` are the feedback's rows to validate on."""
        new = [each for each in held_back if self.corrections[name].is_new(each)]
        learned = learned_rows(self.manifest, name) > 0
        return choose_calibration_rows(self.old.get(name), self.traffic(name), new, learned=learned)

    @cached_property
    def kept_limits(self) -> dict[str, str]:
        """By task that keeps temperature and thresholds of the current version: why."""
        found = {spec.name: self.calibration_rows(spec.name) for spec in self.manifest.tasks}
        return {name: each.reason_to_keep for name, each in found.items() if each.reason_to_keep}

    @cached_property
    def unused_keys(self) -> list[str]:
        """A line for each key without effect in the old recipe, which was left out."""
        return describe_unused_keys(self.recipe, self.job.old.folder) if self.recipe and self.job.old else []

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
        validation=mix.without_judged(data.validation),
        outside=mix.without_judged(data.outside),
        test=mix.without_judged(data.test),
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


def write_mix(
    mix: Mix, current: Path, folder: Path, *, withheld: Collection[str] = (), steps: int | None = None
) -> dict[str, Any]:
    """Write recipe and data into `folder`; returns how many rows each task has of what.

    Of the tasks `withheld` the feedback's rows with labels that the current version knows are left out: what else the
    training changes shows without them. `steps` replaces the job's budget.
    """
    held_specs = [spec for spec in mix.manifest.tasks if spec.name not in mix.old]
    held = [spec.name for spec in held_specs]
    answers = CurrentAnswers(current, held_specs, mix.texts()) if held else None
    tasks: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for spec in mix.manifest.tasks:
        feedback = mix.corrections.get(spec.name)
        parts = _seen_again(mix, spec) if answers is None or spec.name in mix.old else _held(mix, spec, answers)
        if feedback is not None and spec.name in withheld:
            feedback = replace(feedback, train=[example for example in feedback.train if feedback.is_new(example)])
        held_back = _add_feedback(mix, feedback, parts) if feedback is not None and feedback.train else []
        if chosen := mix.calibration_rows(spec.name, held_back).rows:
            parts["calibration"] = ([kind_of(spec).write_row(example) for example in chosen], {})
        tasks[spec.name] = _task(mix, spec, parts)
        rows = {name: write_rows(folder / f"{spec.name}.{name}.jsonl", lines) for name, (lines, _) in parts.items()}
        counts[spec.name] = {"rows": rows, "new": feedback.new if feedback else [], "held": spec.name in held}
        if feedback is not None and feedback.left_out:
            counts[spec.name]["left_out"] = dict(feedback.left_out)
    document = _recipe(mix, tasks, _attribution(current, mix))
    if steps is not None:
        document["budget"]["steps"] = steps
    (folder / RECIPE).write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return counts


Parts = dict[str, tuple[list[dict[str, Any]], dict[str, Any]]]
"""File's stem: its rows, and what the recipe says of it beside its path."""


def _seen_again(mix: Mix, spec: TaskSpec) -> Parts:
    data, kind = mix.old[spec.name], kind_of(spec)
    parts = {
        "replay": mix.replayed(spec.name),
        "validation": data.validation,
        "choosing": data.choosing,
    }
    # Where nobody has said anything, the current answers are what is to stay; the labels would be learned by heart, seen
    # for the third and fourth time.
    kept = {} if spec.name in mix.corrections else {"replay": {"soft": "all"}}
    return {name: ([kind.write_row(example) for example in part], kept.get(name, {})) for name, part in parts.items()}


def _held(mix: Mix, spec: TaskSpec, answers: CurrentAnswers) -> Parts:
    rows = answers.to_hold(spec, mix.corrections.get(spec.name), mix.earlier.get(spec.name))
    parts: Parts = {name: (lines, {} if name in _NO_ROWS else {"soft": name}) for name, lines in rows.items()}
    if spec.name in mix.earlier:
        parts["earlier"] = ([kind_of(spec).write_row(example) for example in mix.earlier[spec.name].train], {})
    return parts


def _add_feedback(mix: Mix, feedback: Corrections, parts: Parts) -> list[Example]:
    """Add the rows to learn and to validate on, and return the latter."""
    earlier = mix.taught_earlier(feedback.spec.name)
    learned, validation = divided(feedback.train, mix.job.fit.seed, earlier)
    other_rows = sum(len(lines) for name, (lines, _) in parts.items() if name not in _NO_ROWS)
    kept, extra = parts.get("validation", ([], {}))
    if not kept and not validation:  # no label has rows to spare: better the ones that are learned than none
        validation = learned[:1]
    kind = kind_of(feedback.spec)
    parts["validation"] = ([*kept, *(kind.write_row(example) for example in validation)], extra)
    given = mix.job.feedback.weight
    before = other_rows / max(1, len(known_labels(feedback.spec)))
    groups = by_repeats(learned, before) if given == "balanced" else {given: learned}
    for times, rows in groups.items():
        parts[f"feedback-x{times}"] = ([kind.write_row(example) for example in rows], {"repeat": times})
    return validation


def _task(mix: Mix, spec: TaskSpec, parts: Parts) -> dict[str, Any]:
    """Return the task as it stands in the recipe."""
    feedback = mix.corrections.get(spec.name)
    sources = [
        {"path": f"{spec.name}.{name}.jsonl", **extra}
        for name, (rows, extra) in parts.items()
        if rows and name not in _NO_ROWS
    ]
    if not sources:
        raise SetupError(f"task {spec.name}: nothing to train on; raise old.replay, or name hold.texts")
    task: dict[str, Any] = {
        "kind": spec.kind,
        "labels": feedback.labels if feedback else list(spec.labels),
        "open": spec.open,
        "train": sources,
        "validation": f"{spec.name}.validation.jsonl",
    }
    if "calibration" in parts:
        task["calibration"] = f"{spec.name}.calibration.jsonl"
    old = mix.recipe.tasks.get(spec.name) if mix.recipe else None
    if (old is None or old.default_for is None) and (agents := listed_agents(spec)) is not None:
        task["default_for"] = agents
    if old is None:
        return task | ({"out_of_scope": spec.out_of_scope} if spec.out_of_scope else {})
    kept = old.model_dump(mode="json", exclude=_NOT_KEPT_OF_TASK, exclude_none=True)
    if old.out_of_scope is not None and not old.out_of_scope.learn and not _has_scope_rows(mix, spec.name):
        del kept["out_of_scope"]  # a label without a class and without a row decides nothing
    rule = old.thresholds.model_dump(exclude={"data"}, exclude_none=True)
    if "out_of_scope" not in kept:
        rule.pop("max_flagged", None)  # it chooses a threshold between rows in scope and out of it
    if "choosing" in parts and parts["choosing"][0]:
        rule["data"] = f"{spec.name}.choosing.jsonl"
    return kept | task | ({"thresholds": rule} if rule else {})


def _has_scope_rows(mix: Mix, name: str) -> bool:
    return bool(mix.old[name].outside or mix.old[name].choosing) if name in mix.old else False


def _recipe(mix: Mix, tasks: Mapping[str, Any], attribution: str) -> dict[str, Any]:
    """Return the recipe before with what the job, the version and the feedback say instead."""
    fit, manifest = mix.job.fit, mix.manifest
    kept = mix.recipe.model_dump(mode="json", exclude=_NOT_KEPT, exclude_none=True) if mix.recipe else {}
    named = {
        "name": manifest.name,
        "max_tokens": manifest.limits.max_tokens,
        "encoder": f"{manifest.name}-{manifest.version}",
        "budget": kept.get("budget", {})
        | fit.model_dump(include={"epochs", "steps", "evaluations"}, exclude_none=True),
        # Heads go on as they are: replayed rows alone would teach a new one less than the head knows.
        "few_rows": 0,
        "optimiser": kept.get("optimiser", {}) | {"encoder_lr": fit.encoder_lr, "head_lr": fit.head_lr},
        "hold": mix.job.hold.model_dump(include={"weight", "temperature"}),
        "tasks": dict(tasks),
        "attribution": attribution,
    }
    also = fit.model_dump(
        mode="json", exclude={"epochs", "steps", "evaluations", "encoder_lr", "head_lr"}, exclude_none=True
    )
    return kept | also | named


def _attribution(current: Path, mix: Mix) -> str:
    """Carry on what the current version says of its data."""
    file = current / "ATTRIBUTION.md"
    before = file.read_text(encoding="utf-8").split("\n", 2)[-1].strip() if file.is_file() else ""
    version = f"{mix.manifest.name} {mix.manifest.version}"
    return f"Trained further from {version} on feedback.\n\n{before}".strip()
