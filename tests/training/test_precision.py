"""What a run computes in: fp16 with scaled losses, and what a machine without a GPU says to it.

`accelerate` opens a scaler for GPUs only. Here it is torch's own for the CPU: all but the kernels is what a GPU runs.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from stopped_training import Stopped, stop_before
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import RECIPE

from murmura.runtime.errors import SetupError
from murmura.training.fit.check_data import check_data
from murmura.training.fit.loop import fit, train
from murmura.training.fit.setup import Fitting, prepare
from murmura.training.fit.state.resume import State, read_state, save_state
from murmura.training.fit.steps.gradient import compute_gradient
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import WEIGHTS, RunFolder

WriteRecipe = Callable[..., Path]
TASKS = {"intent": RECIPE["tasks"]["intent"]}
SCALE = 2.0**20
"""With it the first steps of a tiny encoder overflow."""


def prepare_fp16(recipe: Path, data: Path, folder: Path, scale: float) -> Fitting:
    """Prepare a run in fp16 on the CPU, whose losses are scaled by so much at first."""
    run = prepare(load_recipe(recipe), data, RunFolder(folder))
    AcceleratorState._reset_state(reset_partial_state=True)
    run.accelerator = Accelerator(
        mixed_precision="fp16", cpu=True, log_with="tensorboard", project_dir=folder / "board"
    )
    run.accelerator.scaler, run.accelerator.native_amp = torch.amp.GradScaler("cpu", init_scale=scale), True
    run.precision = "fp16"
    run.folder.begin(recipe, run.checkpoint.tokenizer)
    return run


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_fp16_without_a_gpu_is_one_line_before_anything_is_read(
    data: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    recipe = write_recipe(precision="fp16")
    line = r"tiny\.yaml:\d+: precision: fp16 needs a CUDA GPU, this machine has none; expected auto, bf16 or fp32"
    with pytest.raises(SetupError, match=line):
        fit(recipe, data, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    (problem,) = check_data(load_recipe(recipe), data).problems
    assert "fp16 needs a CUDA GPU" in problem


def test_steps_whose_scaled_gradient_overflows_are_left_out_and_training_goes_on(
    data: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    recipe = write_recipe(tasks=TASKS, budget={"steps": 40, "evaluations": 1})
    run = prepare_fp16(recipe, data, tmp_path / "run", scale=2.0**26)
    train(run, quiet=True)
    assert 1 < run.accelerator.scaler.get_scale() < 2.0**20
    assert run.standing.scores["intent"]["main"] > 0.7
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())
    events = EventAccumulator(str(tmp_path / "run" / "board" / "tiny"))
    events.Reload()
    skipped = [event.value for event in events.Scalars("gradient/skipped_share")]
    assert 0.2 < skipped[0] < 1
    assert skipped[1] == 0
    assert math.isfinite(events.Scalars("gradient/all")[0].value)
    assert math.isfinite(events.Scalars("gradient/intent")[1].value)


def test_a_run_in_fp16_goes_on_with_the_scale_that_it_had(
    data: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    recipe = write_recipe(tasks=TASKS, budget={"steps": 8, "evaluations": 1})
    run = prepare_fp16(recipe, data, tmp_path / "run", scale=2.0**20)
    optimiser = run.accelerator.prepare_optimizer(torch.optim.AdamW(run.model.parameters()))
    run.accelerator.scaler.scale(torch.zeros(1))
    run.accelerator.scaler.update(2.0**7)
    save_state(run, optimiser)
    state = read_state(run.folder, recipe)
    again = prepare_fp16(recipe, data, tmp_path / "other", scale=2.0**20)
    again.folder = run.folder
    assert state is not None
    optimiser = again.accelerator.prepare_optimizer(torch.optim.AdamW(again.model.parameters()))
    state.restore(again, optimiser)
    assert again.accelerator.scaler.get_scale() == 2.0**7
    compute_gradient(again, again.plan[0], [1.0])
    optimiser.step()
    assert again.accelerator.scaler.get_scale() in {2.0**6, 2.0**7}


def test_an_interrupted_run_in_fp16_goes_on_to_the_same_bytes_and_not_without_its_scaler(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"save_minutes": 0, "dropout": 0.1, "probe": False, "few_rows": 0}
    recipe = write_recipe(tasks=TASKS, budget={"steps": 10, "evaluations": 1}, **changes)

    def run(name: str, state: State | None = None) -> tuple[bytes, dict[str, Any]]:
        """Train in the folder of this name; return the checkpoint's bytes and the scaler in the end."""
        fitting = prepare_fp16(recipe, few, tmp_path / name, SCALE)
        train(fitting, state=state, quiet=True)
        return (tmp_path / name / WEIGHTS).read_bytes(), fitting.accelerator.scaler.state_dict()

    whole = run("whole")
    with monkeypatch.context() as patch:
        stop_before(8, patch)
        with pytest.raises(Stopped):
            run("stopped")
    state = read_state(RunFolder(tmp_path / "stopped"), recipe)
    assert state is not None
    scaler = state.position.scaler
    assert scaler is not None
    assert scaler["scale"] < SCALE, "steps were left out"
    assert scaler["_growth_tracker"] > 0, "and others counted"
    assert run("resumed", state) == whole
    for key, other in (("_growth_tracker", 0), ("scale", SCALE)):
        position = state.position.model_copy(update={"scaler": {**scaler, key: other}})
        assert run(f"without {key}", replace(state, position=position)) != whole, key
