"""Feedback and what must not be forgotten become one recipe with its data, in a folder of their own.

A task with old data replays a share of it. A task without is held on to by the current version's answers on the new
texts, and on whatever texts the job names.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Final

import yaml

from ..runtime.errors import SetupError
from ..runtime.model import Model
from ..schemas.manifest import ModelManifest, TaskSpec
from .corrections import Corrections, as_row, named, write_rows
from .data import Example, Span, read_part
from .dataset import TaskData, read_tasks
from .job import Job
from .recipe import Recipe, Source, Task, load_recipe

RECIPE: Final = "recipe.yaml"
VALIDATION_SHARE: Final = 0.1
MOST_REPEATS: Final = 20


@dataclass(frozen=True)
class Mix:
    """What goes into a run. `old` are the tasks that have data of their own."""

    job: Job
    manifest: ModelManifest
    corrections: Mapping[str, Corrections]
    recipe: Recipe | None
    old: Mapping[str, TaskData]


def plan_mix(job: Job, manifest: ModelManifest, corrections: Mapping[str, Corrections]) -> Mix:
    """Read the old data and check it against the model: SetupError before anything starts."""
    if job.old is None:
        return Mix(job, manifest, corrections, None, {})
    recipe = load_recipe(job.old.recipe)
    has = {spec.name for spec in manifest.tasks}
    if lacking := [name for name in recipe.tasks if name not in has]:
        raise SetupError(f"{job.old.recipe}: tasks.{lacking[0]}: the current version has no such task")
    read = {data.name: data for data in read_tasks(recipe, job.old.data)}
    for name, data in read.items():
        known = set(manifest.task(name).labels)
        if unknown := [label for label in data.labels if label not in known]:
            raise SetupError(
                f"{job.old.recipe}: tasks.{name}: the current version has no label {unknown[0]!r}; it is not the recipe "
                "that this version was made by"
            )
    return Mix(job, manifest, corrections, recipe, read)


def write_mix(mix: Mix, current: Path, folder: Path) -> dict[str, Any]:
    """Write recipe and data into `folder`; returns how many rows each task has of what."""
    held = [spec for spec in mix.manifest.tasks if spec.name not in mix.old]
    answers = _Answers(current, held, mix) if held else None
    tasks: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for spec in mix.manifest.tasks:
        parts = _replayed(mix, spec) if spec.name in mix.old else answers.parts(spec) if answers else {}
        feedback = mix.corrections.get(spec.name)
        if feedback is not None and feedback.train:
            _add_feedback(mix, feedback, parts)
        tasks[spec.name] = _task(mix, spec, parts)
        rows = {name: write_rows(folder / f"{spec.name}.{name}.jsonl", lines) for name, (lines, _) in parts.items()}
        counts[spec.name] = {"rows": rows, "new": feedback.new if feedback else [], "held": spec.name not in mix.old}
        if feedback is not None and feedback.left_out:
            counts[spec.name]["left_out"] = dict(feedback.left_out)
    document = _recipe(mix, tasks, _attribution(current, mix))
    (folder / RECIPE).write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return counts


Parts = dict[str, tuple[list[dict[str, Any]], dict[str, Any]]]
"""File's stem: its rows, and what the recipe says of it beside its path."""


def _replayed(mix: Mix, spec: TaskSpec) -> Parts:
    assert mix.job.old is not None
    data, draw = mix.old[spec.name], random.Random(mix.job.fit.seed)
    count = round(mix.job.old.replay * len(data.train))
    rows = draw.sample(data.train, count)
    parts = {"replay": rows, "validation": [*data.validation, *data.outside], "choosing": data.choosing}
    return {name: ([as_row(example, spec.kind) for example in part], {}) for name, part in parts.items()}


def _add_feedback(mix: Mix, feedback: Corrections, parts: Parts) -> None:
    rows = list(feedback.train)
    random.Random(mix.job.fit.seed).shuffle(rows)
    few = round(VALIDATION_SHARE * len(rows))
    validation = [as_row(example, feedback.spec.kind) for example in rows[:few]]
    kept, extra = parts.get("validation", ([], {}))
    parts["validation"] = ([*kept, *validation], extra)
    learned = rows[few:]
    given = mix.job.feedback.weight
    times = _balance(feedback, learned, parts) if given == "balanced" else given
    parts["feedback"] = ([as_row(example, feedback.spec.kind) for example in learned], {"repeat": times})


def _balance(feedback: Corrections, rows: Sequence[Example], parts: Parts) -> int:
    """Return how often a feedback row is seen, so that its labels have as many rows as the labels that are there."""
    there = sum(len(lines) for name, (lines, _) in parts.items() if name in {"replay", "all", "own"})
    labels = {label for example in rows for label in named(example)}
    before = there / max(1, len(feedback.spec.labels))
    now = mean([sum(label in named(e) for e in rows) for label in labels]) if labels else 1
    return min(MOST_REPEATS, max(1, round(before / max(1, now))))


class _Answers:
    """What the current version answers to the texts that are at hand."""

    def __init__(self, current: Path, held: Sequence[TaskSpec], mix: Mix) -> None:
        every = [example.text for each in mix.corrections.values() for example in each.train]
        self._texts = list(dict.fromkeys([*every, *_more_texts(mix.job)]))
        model = Model.load(current)
        self._outputs = model.predict(self._texts, [spec.name for spec in held])
        self._given = {
            name: {example.text: example for example in each.train} for name, each in mix.corrections.items()
        }
        self._corrections = mix.corrections

    def parts(self, spec: TaskSpec) -> Parts:
        """Return the rows to hold on to: `all` where the version answered, `own` where it withheld or did not know.

        A text that was corrected to a label which the version has is not held on to: its answer was wrong.
        """
        parts: Parts = {name: ([], {"soft": name}) for name in ("all", "own")}
        given = self._given.get(spec.name, {})
        for text, outputs in zip(self._texts, self._outputs, strict=True):
            output = outputs[spec.name]
            example = given.get(text)
            if example is not None and not self._corrections[spec.name].is_new(example):
                continue
            unsure = example is not None or output.get("abstained", False)
            parts["own" if unsure else "all"][0].append(as_row(_as_example(text, output), spec.kind))
        validation: list[dict[str, Any]] = []
        for rows, _ in parts.values():
            few = round(VALIDATION_SHARE * len(rows))
            validation += rows[:few]
            del rows[:few]
        if not validation:  # every row was taken for training, or there is none
            validation = next((rows[:1] for rows, _ in parts.values() if rows), [])
        return parts | {"validation": (validation, {})}


def _more_texts(job: Job) -> list[str]:
    found = []
    for path in job.hold.texts:
        task = Task(train=[Source(path=path.name, label="any")])
        found += [example.text for example in read_part(task.train, task, path.parent, seed=0)]
    return found


def _as_example(text: str, output: Mapping[str, Any]) -> Example:
    if output["kind"] == "classification":
        return Example(text, (output["alternatives"][0]["label"],))
    if output["kind"] == "multi_label":
        return Example(text, tuple(item["label"] for item in output["labels"]))
    return Example(text, spans=tuple(Span(item["start"], item["end"], item["label"]) for item in output["spans"]))


def _task(mix: Mix, spec: TaskSpec, parts: Parts) -> dict[str, Any]:
    """Return the task as it stands in the recipe."""
    feedback = mix.corrections.get(spec.name)
    sources = [
        {"path": f"{spec.name}.{name}.jsonl", **extra}
        for name, (rows, extra) in parts.items()
        if rows and name not in {"validation", "choosing"}
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
    old = mix.recipe.tasks.get(spec.name) if mix.recipe else None
    if old is None:
        return task | ({"out_of_scope": spec.out_of_scope} if spec.out_of_scope else {})
    kept = old.model_dump(
        include={"loss_weight", "sampling_weight", "label_smoothing", "out_of_scope"}, exclude_none=True, mode="json"
    )
    rule = old.thresholds.model_dump(exclude={"data"}, exclude_none=True)
    if "choosing" in parts and parts["choosing"][0]:
        rule["data"] = f"{spec.name}.choosing.jsonl"
    return task | kept | ({"thresholds": rule} if rule else {})


def _recipe(mix: Mix, tasks: Mapping[str, Any], attribution: str) -> dict[str, Any]:
    fit, manifest = mix.job.fit, mix.manifest
    budget = {"epochs": fit.epochs, "evaluations": fit.evaluations} | ({"steps": fit.steps} if fit.steps else {})
    document: dict[str, Any] = {
        "name": manifest.name,
        "max_tokens": manifest.limits.max_tokens,
        "encoder": f"{manifest.name}-{manifest.version}",
        "seed": fit.seed,
        "batch_size": fit.batch_size,
        "budget": budget,
        "optimiser": {"encoder_lr": fit.encoder_lr, "head_lr": fit.head_lr},
        "dropout": fit.dropout,
        "label_smoothing": fit.label_smoothing,
        "precision": fit.precision,
        "hold": mix.job.hold.model_dump(include={"weight", "temperature"}),
        "allow_unknown": mix.recipe.allow_unknown if mix.recipe else False,
    }
    if fit.lora:
        document["lora"] = fit.lora.model_dump(exclude_none=True)
    if fit.threads:
        document["threads"] = fit.threads
    return document | {"tasks": dict(tasks), "attribution": attribution}


def _attribution(current: Path, mix: Mix) -> str:
    """Carry on what the current version says of its data."""
    file = current / "ATTRIBUTION.md"
    before = file.read_text(encoding="utf-8").split("\n", 2)[-1].strip() if file.is_file() else ""
    version = f"{mix.manifest.name} {mix.manifest.version}"
    return f"Trained further from {version} on feedback.\n\n{before}".strip()
