"""Writes what a retraining learns from: one recipe with its data, in a folder of their own."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from ...runtime.agent.default_agents import listed_agents
from ...runtime.errors import SetupError
from ...runtime.wire.feedback import known_labels
from ...schemas.manifest import TaskSpec
from ..data.example import Example
from ..kinds.registry import kind_of
from ..recipe.keys.reading import Reading
from ..recipe.keys.tasks import describe_form
from ..run_folders.os_errors import write_text
from .balance import by_repeats, divided, repeat_replies
from .corrections import Corrections, write_rows
from .hold_texts import CurrentAnswers
from .plan import Mix
from .recipe import DECIDED_OF_TASK, make_recipe

RECIPE: Final = "recipe.yaml"
NOT_KEPT_OF_TASK: Final = set(Reading.model_fields) | {
    *(
        "train",
        "validation",
        "validation_share",
        "calibration",
        "group",
        "test",
        "reports",
        "thresholds",
        "skip",
        "verbaliser",
    )
}
"""Keys of a task that belong to its data, which is mixed anew; its thresholds are carried on one by one. What a verbaliser began goes
on as the encoder's template and the form of the head.
"""
_NO_ROWS: Final = ("validation", "calibration", "choosing")
"""Parts that are not trained on."""


def write_mix(
    mix: Mix, current: Path, folder: Path, *, withheld: Collection[str] = (), steps: int | None = None
) -> dict[str, Any]:
    """Write recipe and data into `folder`; returns how many rows each task has of what.

    Of the tasks `withheld` the feedback's rows with labels that the current version knows are left out: what else the
    training changes shows without them. `steps` replaces the job's budget.
    """
    taught = [spec for spec in mix.manifest.tasks if spec.name not in mix.untaught]
    held_specs = [spec for spec in taught if spec.name not in mix.old and not kind_of(spec).generates]
    held = [spec.name for spec in held_specs]
    answers = CurrentAnswers(current, held_specs, mix.texts()) if held else None
    tasks: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for spec in taught:
        feedback = mix.corrections.get(spec.name)
        parts = _seen_again(mix, spec) if spec.name in mix.old else _held(mix, spec, answers)
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
    document = make_recipe(mix.job, mix.manifest, mix.recipe, tasks, _attribution(current, mix), steps=steps)
    write_text(folder / RECIPE, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
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
    kept = {} if spec.name in mix.corrections or kind.generates else {"replay": {"soft": "all"}}
    return {name: ([kind.write_row(example) for example in part], kept.get(name, {})) for name, part in parts.items()}


def _held(mix: Mix, spec: TaskSpec, answers: CurrentAnswers | None) -> Parts:
    if answers is None or kind_of(spec).generates:
        return _learned_earlier(mix, spec)
    rows = answers.to_hold(spec, mix.corrections.get(spec.name), mix.earlier.get(spec.name))
    parts: Parts = {name: (lines, {} if name in _NO_ROWS else {"soft": name}) for name, lines in rows.items()}
    if spec.name in mix.earlier:
        parts["earlier"] = ([kind_of(spec).write_row(example) for example in mix.earlier[spec.name].train], {})
    return parts


def _learned_earlier(mix: Mix, spec: TaskSpec) -> Parts:
    rows, validation = divided(mix.taught_earlier(spec.name), mix.job.fit.seed)
    parts, kind = {"earlier": rows, "validation": validation or rows[:1]}, kind_of(spec)
    return {name: ([kind.write_row(example) for example in part], {}) for name, part in parts.items() if part}


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
    if given != "balanced":
        groups = {given: learned}
    elif kind.generates:
        old = mix.replayed(feedback.spec.name) if feedback.spec.name in mix.old else earlier
        groups = repeat_replies(learned, old)
    else:
        groups = by_repeats(learned, before)
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
        **describe_form(spec),
        "open": spec.open,
        "train": sources,
        "validation": f"{spec.name}.validation.jsonl",
    }
    if feedback and feedback.new:
        task["labels"] = feedback.labels
    if "calibration" in parts:
        task["calibration"] = f"{spec.name}.calibration.jsonl"
    old = mix.recipe.tasks.get(spec.name) if mix.recipe else None
    if (old is None or old.default_for is None) and (agents := listed_agents(spec)) is not None:
        task["default_for"] = agents
    if old is None:
        return ({"out_of_scope": spec.out_of_scope} if spec.out_of_scope else {}) | task
    kept = old.model_dump(mode="json", exclude=NOT_KEPT_OF_TASK | {*DECIDED_OF_TASK}, exclude_none=True)
    if old.out_of_scope is not None and not old.out_of_scope.learn and not _has_scope_rows(mix, spec.name):
        del kept["out_of_scope"]  # a label without a class and without a row decides nothing
    rule = old.thresholds.model_dump(exclude={"data"}, exclude_none=True)
    if "out_of_scope" not in kept and kind_of(spec).serving.out_of_scope:
        rule.pop("max_flagged", None)  # it chooses a threshold between rows in scope and out of it
    if "choosing" in parts and parts["choosing"][0]:
        rule["data"] = f"{spec.name}.choosing.jsonl"
    return kept | task | ({"thresholds": rule} if rule else {})


def _has_scope_rows(mix: Mix, name: str) -> bool:
    return bool(mix.old[name].outside or mix.old[name].choosing) if name in mix.old else False


def _attribution(current: Path, mix: Mix) -> str:
    """Carry on what the current version says of its data."""
    file = current / "ATTRIBUTION.md"
    before = file.read_text(encoding="utf-8").split("\n", 2)[-1].strip() if file.is_file() else ""
    version = f"{mix.manifest.name} {mix.manifest.version}"
    return f"Trained further from {version} on feedback.\n\n{before}".strip()
