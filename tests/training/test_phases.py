"""A training in phases: joint, then one task, then heads alone; optimisers, frozen layers and rows that count unlike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from stopped_training import assert_resumed_equals_whole
from tiny_methods import METHODS
from tiny_training import RECIPE
from torch.nn import functional as F

from murmura.runtime.errors import SetupError
from murmura.training.compute.phase_rows import count_phase
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import Fitting, prepare
from murmura.training.fit.start.optimiser import make_optimiser
from murmura.training.fit.steps import gradient
from murmura.training.fit.steps.row_weights import row_weights
from murmura.training.recipe.recipe import Recipe, load_recipe
from murmura.training.run_folders.run_folder import RunFolder
from murmura.training.transfer.plan import make_alone

WriteRecipe = Callable[..., Path]
TWO = {name: RECIPE["tasks"][name] for name in ("intent", "places")}
SHORT = {"tasks": TWO, "trackers": [], "probe": False, "few_rows": 0, "budget": {"evaluations": 1}}
PHASES = [
    {"name": "joint", "steps": 4},
    {"name": "one", "tasks": ["intent"], "steps": 4, "optimiser": {"layer_decay": 0.5}, "freeze": 1, "dropout": 0.2},
    {"name": "heads", "steps": 3, "freeze": "encoder"},
]


def weights_of(run: Path, name: str = "checkpoint.safetensors") -> dict[str, np.ndarray]:
    return load_file(run / name)


def test_phases_follow_each_other_and_an_interrupted_one_goes_on(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    path = write_recipe(phases=PHASES, save_minutes=0, **SHORT)
    after_joint: dict[str, np.ndarray] = {}

    def look(run: Path) -> None:
        with safe_open(run / "state.safetensors", framework="np") as file:
            standing = json.loads(file.metadata()["position"])["standing"]
        assert (standing["phase"], standing["step"], standing["before"]) == (1, 2, 4)
        after_joint.update(weights_of(run, "phase-1.safetensors"))

    record = assert_resumed_equals_whole(path, few, tmp_path, step=7, meanwhile=look).resumed
    assert [(phase.name, phase.steps, phase.best_step) for phase in record.phases] == [
        ("joint", 4, 4),
        ("one", 4, 4),
        ("heads", 3, 3),
    ]
    assert (record.steps, record.planned_steps, record.best_step) == (11, 11, 11)
    assert [phase.tasks for phase in record.phases] == [["intent", "places"], ["intent"], ["intent", "places"]]
    assert all(set(phase.validation) == {"intent", "places"} for phase in record.phases)
    changed = {
        name for name, array in weights_of(tmp_path / "run").items() if not np.array_equal(array, after_joint[name])
    }
    frozen = {name for name in after_joint if name.startswith(("embeddings.", "encoder.layer.0."))}
    assert frozen
    assert not frozen & changed
    assert {"encoder.layer.1.output.dense.weight", "heads.intent.weight", "heads.places.weight"} <= changed


def test_a_phase_that_says_no_length_has_the_steps_of_the_budget(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    phases = [{"name": "joint"}, {"name": "short", "steps": 2}, {"name": "passes", "tasks": ["intent"], "epochs": 0.5}]
    path = write_recipe(phases=phases, **{**SHORT, "budget": {"steps": 3, "evaluations": 1}})
    record = fit(path, few, tmp_path / "run", quiet=True)
    assert [phase.steps for phase in record.phases] == [3, 2, 1]
    recipe = load_recipe(path)
    rows = {"intent": 30, "places": 30}
    assert [len(count_phase(recipe, phase, rows).steps) for phase in recipe.phases] == [3, 2, 1]
    alone = Recipe.model_validate(make_alone(recipe, "intent", rows))
    assert [phase.steps for phase in alone.phases][:2] == [2, 1]


@pytest.mark.parametrize(("weights", "method"), [("dwa", "dora"), ("uncertainty", "bottleneck")])
def test_weights_of_tasks_and_a_method_around_the_encoder_go_on_in_a_later_phase(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe, weights: str, method: str
) -> None:
    phases = [{"name": "first", "steps": 4}, {"name": "second", "steps": 6, "dropout": 0.2}]
    keys = {"encoder": str(base), "weights": weights, "method": METHODS[method], "phases": phases, "save_minutes": 0}
    record = assert_resumed_equals_whole(write_recipe(**keys, **SHORT), few, tmp_path, step=9, again=(1,)).resumed
    assert [phase.steps for phase in record.phases] == [4, 6]


def test_each_layer_learns_at_the_rate_of_the_one_above_times_the_decay(
    few: Path, open_run: Callable[..., Fitting]
) -> None:
    run = open_run(few, optimiser={"encoder_lr": 1e-3, "head_lr": 1e-2, "layer_decay": 0.5})
    groups = make_optimiser(run.recipe, run.model, run.weighting).param_groups
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == {"encoder.embeddings": 2.5e-4, "encoder.layer.0": 5e-4, "encoder": 1e-3, "heads": 1e-2}
    held = [id(parameter) for group in groups for parameter in group["params"]]
    trained = [id(parameter) for parameter in run.model.parameters() if parameter.requires_grad]
    assert sorted(held) == sorted(trained)


@pytest.mark.parametrize("method", ["adafactor", "sgd"])
def test_other_optimisers_go_on_as_in_a_run_that_was_not_interrupted(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, method: str
) -> None:
    optimiser = {"method": method, "encoder_lr": 1e-2, "head_lr": 1e-1}
    keys = {**SHORT, "budget": {"steps": 5, "evaluations": 1}, "optimiser": optimiser, "save_minutes": 0}
    assert_resumed_equals_whole(write_recipe(**keys), few, tmp_path, step=4)


def test_focal_loss_counts_a_sure_row_less_and_class_weights_count_by_label() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    target = torch.tensor([0, 1])
    sure = torch.softmax(logits, -1)[0, 0]
    focal = row_weights(logits, target, None, 2.0)
    assert focal.tolist() == pytest.approx([float((1 - sure) ** 2), 0.25])
    weights = row_weights(logits, target, [0.5, 3.0], None)
    mean = (weights * F.cross_entropy(logits, target, reduction="none")).mean()
    assert weights.tolist() == [0.5, 3.0]
    assert float(mean) == pytest.approx((0.5 * -float(sure.log()) + 3.0 * float(np.log(2))) / 2)


def test_balanced_weights_are_in_inverse_proportion_to_the_rows(few: Path, open_run: Callable[..., Fitting]) -> None:
    lines = (few / "train.jsonl").read_text().splitlines()
    (few / "train.jsonl").write_text("\n".join(line for at, line in enumerate(lines) if at % 3 or at < 6) + "\n")
    (data,) = open_run(few, tasks={"intent": {"train": "train.jsonl", "class_weights": "balanced"}}).tasks
    assert data.class_weights is not None
    rows = [sum(example.labels[0] == label for example in data.train) for label in data.labels]
    assert [count * weight for count, weight in zip(rows, data.class_weights, strict=True)] == pytest.approx(
        [len(data.train) / len(rows)] * len(rows)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"phases": [{"name": "a", "tasks": ["colour"]}]},
            r"phases\.tasks: no task colour; expected some of intent, places",
        ),
        ({"phases": [{"name": "a", "steps": 1}, {"name": "a"}]}, r"phases\.name: a stands twice"),
        (
            {"phases": [{"name": "a", "tasks": ["places", "intent", "places"]}]},
            r"tiny\.yaml:\d+: phases\.tasks: places stands twice",
        ),
        ({"phases": [{"name": "a", "tasks": []}]}, r"phases\.tasks: .*at least 1 item"),
        ({"phases": [{"name": "a", "steps": 1, "epochs": 1}]}, r"phases: `steps` and `epochs` stand together"),
        (
            {"phases": [{"name": "a"}, {"name": "b"}, {"name": "c", "epochs": 1}], "budget": {"steps": 9}},
            r"tiny\.yaml:\d+: budget\.steps: 9 are the steps of one phase, but a, b have neither `steps` nor `epochs`",
        ),
        (
            {"phases": [{"name": "a", "epochs": 1}, {"name": "b", "steps": 2}], "budget": {"steps": 9}},
            r"tiny\.yaml:\d+: budget\.steps: has no effect: every phase has its own",
        ),
        ({"phases": [{"name": "a", "epochs": 0.001}]}, r"phases: a trains nothing: its rows make no step"),
        ({"freeze": 3}, r"freeze: 3 layers, the encoder has 2; `encoder` freezes all of it"),
        ({"freeze": "heads"}, r"freeze: expected `embeddings`, `encoder` or a number of layers, found 'heads'"),
        ({"optimiser": {"method": "sgd"}}, r"optimiser: sgd needs rates of its own: set `encoder_lr` and `head_lr`"),
        (
            {"tasks": {"places": {**TWO["places"], "focal": 2}}},
            r"tasks\.places: a task of kind tagging does not use `focal`",
        ),
        (
            {"tasks": {"intent": {**TWO["intent"], "class_weights": {"lots": 2}}}},
            r"tasks\.intent\.class_weights: no label 'lots'; expected some of ",
        ),
    ],
)
def test_phases_and_settings_that_cannot_be_are_refused_in_one_line(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SetupError, match=message) as caught:
        fit(write_recipe(**{**SHORT, **changes}), few, tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value)


def test_a_phase_overrides_what_it_sets_of_the_optimiser(write_recipe: WriteRecipe) -> None:
    recipe = load_recipe(write_recipe(phases=[{"name": "a", "optimiser": {"head_lr": 0.5}}]))
    changed = recipe.optimiser.override(recipe.phases[0].optimiser)
    assert (changed.head_lr, changed.encoder_lr) == (0.5, 3e-3)


def test_class_weights_count_rows_with_labels_also_beside_soft_ones_which_are_said_to_count_alike(
    few: Path, tmp_path: Path, model_folder: Path, write_recipe: WriteRecipe
) -> None:
    rows = [json.loads(line) for line in (few / "train.jsonl").read_text().splitlines()]
    lost = [row for row in rows if row["label"] == "lost"]
    for name, part in (("soft", lost[:4]), ("hard", rows)):
        (few / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    sources = [{"path": "soft.jsonl", "soft": "all"}, "hard.jsonl"]
    intent = {"out_of_scope": "other", "train": sources, "validation": "hard.jsonl"}
    keys = {"encoder": str(model_folder), **{**SHORT, "tasks": {}}, "batch_size": 40}

    def losses(**task: Any) -> dict[int, float]:
        recipe = load_recipe(write_recipe(**{**keys, "tasks": {"intent": {**intent, **task}}}))
        run = prepare(recipe, few, RunFolder(tmp_path / "run"))
        run.model.eval()
        notes = run.data["intent"].notes
        assert any("`class_weights` do not act on 4 training rows marked `soft`" in note for note in notes) == bool(
            task
        )
        soft, hard = [*run.train[0].held], [row for row in range(len(run.train[0].ids)) if row not in run.train[0].held]
        return {count: gradient.measure_losses(run, [(0, [*soft[:count], *hard])])[0] for count in (0, 4)}

    plain, weighed = losses(), losses(class_weights={"lost": 3, "transfer": 3, "other": 3})
    assert weighed[0] == pytest.approx(3 * plain[0], rel=1e-4)
    hard = len(rows) / (len(rows) + 4)
    assert weighed[4] - plain[4] == pytest.approx(2 * hard * plain[0], rel=1e-3)
