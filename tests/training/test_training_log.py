"""What TensorBoard shows of a run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import RECIPE

from murmura.training.fit.batches import collate
from murmura.training.fit.joint_step import task_losses
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import prepare
from murmura.training.fit.training_log import gradient_norms
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

NAMES = list(RECIPE["tasks"])


def test_every_twenty_steps_the_losses_rates_gradients_speed_and_memory_are_written(
    data: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    recipe = write_recipe(budget={"steps": 45, "evaluations": 1}, optimiser={"clip": 1e-6, "warmup": 0.5})
    fit(recipe, data, tmp_path / "run", quiet=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    expected = [f"{what}/{name}" for what in ("loss", "gradient") for name in NAMES]
    expected += ["gradient/all", "gradient/clipped_share", "learning_rate/encoder", "learning_rate/heads"]
    expected += ["speed/tokens_per_second", "memory/gigabytes"]
    found = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in expected}
    assert all([step for step, _ in values] == [20, 40] for values in found.values())
    assert all(value > 0 for values in found.values() for _, value in values)
    assert [value for _, value in found["gradient/clipped_share"]] == [1.0, 1.0]
    assert found["learning_rate/encoder"][0][1] == pytest.approx(7e-4 * 20 / 22)


def test_the_gradient_of_a_task_is_that_of_the_last_shared_layer(
    data: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    run = prepare(load_recipe(write_recipe()), data, RunFolder(tmp_path / "run"))
    batches = collate(run.train, run.tasks, run.plan[0], "cpu")
    losses = task_losses(run.model, run.tasks, run.recipe, batches, special=run.checkpoint.special, bf16=False)
    found = gradient_norms(losses, [1.0, 2.0, 3.0], run.model.last_layer)
    (3.0 * losses[2]).backward()
    gradients = [p.grad.flatten() for p in run.model.last_layer.parameters() if p.grad is not None]
    assert found[2] == pytest.approx(float(torch.cat(gradients).norm()), rel=1e-5)
    assert set(found) == {0, 1, 2}
