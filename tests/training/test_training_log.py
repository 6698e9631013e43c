"""What TensorBoard and other trackers show of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import accelerator, tracking
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import RECIPE

from murmura.runtime.errors import SetupError
from murmura.training.fit.loop import fit
from murmura.training.fit.rows.batches import collate
from murmura.training.fit.setup import prepare
from murmura.training.fit.steps.gradient import compute_gradient
from murmura.training.fit.steps.joint_step import task_losses
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

NAMES = list(RECIPE["tasks"])


def test_every_twenty_steps_and_at_each_scoring_the_losses_rates_gradients_speed_and_memory_are_written(
    data: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    recipe = write_recipe(budget={"steps": 45, "evaluations": 1}, optimiser={"clip": 1e-6, "warmup": 0.5})
    fit(recipe, data, tmp_path / "run", quiet=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "tiny"))
    events.Reload()
    expected = [f"{what}/{name}" for what in ("loss", "gradient", "weight") for name in NAMES]
    expected += ["gradient/all", "gradient/clipped_share", "learning_rate/encoder", "learning_rate/heads"]
    expected += ["speed/tokens_per_second", "memory/gigabytes"]
    found = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in expected}
    assert all([step for step, _ in values] == [20, 40, 45] for values in found.values())
    assert all(value > 0 for values in found.values() for _, value in values)
    assert [value for _, value in found["gradient/clipped_share"]] == [1.0, 1.0, 1.0]
    assert found["learning_rate/encoder"][0][1] == pytest.approx(7e-4 * 20 / 22)


def test_a_run_of_a_few_steps_shows_the_loss_of_every_task(
    data: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    fit(write_recipe(budget={"steps": 3, "evaluations": 1}), data, tmp_path / "run", quiet=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "tiny"))
    events.Reload()
    for name in NAMES:
        assert [event.step for event in events.Scalars(f"loss/{name}")] == [3]


def test_the_gradient_of_a_task_is_that_of_the_last_shared_layer(
    data: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    run = prepare(load_recipe(write_recipe(precision="fp32")), data, RunFolder(tmp_path / "run"))
    batches = collate(run.train, run.tasks, run.plan[0], "cpu")
    losses = task_losses(run.model, run.tasks, run.recipe, batches, run.checkpoint.special)
    found = compute_gradient(run, run.plan[0], [1.0, 2.0, 3.0], measured=True).compared
    run.model.zero_grad()
    (3.0 * losses[2]).backward()
    gradients = [p.grad.flatten() for p in run.model.last_layer.parameters() if p.grad is not None]
    assert found.norms[2] == pytest.approx(float(torch.cat(gradients).norm()), rel=1e-5)
    assert set(found.norms) == {0, 1, 2}
    assert set(found.cosines) == {(0, 1), (0, 2), (1, 2)}


def test_without_a_tracker_nothing_is_written_and_one_that_is_missing_is_named(
    data: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    fit(write_recipe(budget={"steps": 20}, trackers=[]), data, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "tensorboard").exists()
    with pytest.raises(
        SetupError, match=r"tiny\.yaml:\d+: trackers: 'tensorbord' is not known; expected some of .*wandb"
    ):
        fit(write_recipe(trackers="tensorbord"), data, tmp_path / "run", quiet=True)
    with pytest.raises(SetupError, match=r"tiny\.yaml:\d+: trackers: dvclive is not installed"):
        fit(write_recipe(trackers=["tensorboard", "dvclive"]), data, tmp_path / "run", quiet=True)


def test_any_tracker_that_accelerate_knows_by_name_gets_the_figures(
    data: Path, tmp_path: Path, write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[tuple[int | None, set[str]]] = []

    class Other(GeneralTracker):
        name = "wandb"
        requires_logging_directory = False

        def __init__(self, run_name: str) -> None:
            entries.append((None, {run_name}))

        def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
            entries.append((step, {name.partition("/")[0] for name in values}))

        def finish(self) -> None:
            entries.append((None, {"finished"}))

    monkeypatch.setitem(accelerator.LOGGER_TYPE_TO_CLASS, "wandb", Other)
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.WANDB])
    fit(write_recipe(budget={"steps": 21, "evaluations": 1}, trackers="wandb"), data, tmp_path / "run", quiet=True)
    every = {"loss", "gradient", "cosine", "weight", "learning_rate", "speed", "memory"}
    assert entries == [(None, {"tiny"}), (20, every), (21, every), (21, {"validation"}), (None, {"finished"})]
