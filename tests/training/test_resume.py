"""A run that was killed goes on where it was, and its model is that of a run that was not."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from safetensors import safe_open
from safetensors.torch import save_file
from stopped_training import assert_resumed_equals_whole, fit_until
from tiny_training import RECIPE
from typer.testing import CliRunner

from murmura.runtime.errors import SetupError
from murmura.training.cli import train as commands
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.run_folders.run_folder import RunFolder

SCRIPT = Path(__file__).resolve().parents[1] / "killed_training.py"
TASKS = {
    "intent": RECIPE["tasks"]["intent"] | {"head": {"layers": "mix", "hidden": 16}},
    "places": RECIPE["tasks"]["places"],
}
TWENTY_STEPS = {
    "tasks": TASKS,
    "budget": {"steps": 20, "evaluations": 2},
    "dropout": 0.1,
    "save_minutes": 0,
}
"""Scored at the tenth and the last; random numbers are drawn at each."""
PRECISIONS = ("fp32", "bf16")


@pytest.fixture
def recipe(write_recipe: Callable[..., Path]) -> Callable[..., Path]:
    """A recipe of twenty steps."""

    def write(name: str = "tiny", **changes: Any) -> Path:
        return write_recipe(name, **TWENTY_STEPS, **changes)

    return write


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with PRECISION.yaml and its run, killed three times. One process is started for all: imports take the longest."""
    folder = tmp_path_factory.mktemp("killed")
    for precision in PRECISIONS:
        recipe = RECIPE | TWENTY_STEPS | {"precision": precision}
        (folder / f"{precision}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    runs = [f"{folder}/{precision}.yaml,{folder}/{precision}" for precision in PRECISIONS]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(data), *runs], capture_output=True, text=True, timeout=280, check=True
    )
    assert done.stdout.split() == ["step", "-9", "scoring", "-9", "state", "-9"] * len(PRECISIONS), done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_killed_three_times_gives_the_same_bytes_as_one_that_was_not(
    data: Path, tmp_path: Path, killed: Path, precision: str
) -> None:
    path, interrupted = killed / f"{precision}.yaml", killed / precision
    whole = fit(path, data, tmp_path / "whole", quiet=True)
    export(tmp_path / "whole", tmp_path / "a")
    assert not (interrupted / "run.json").exists()
    with safe_open(interrupted / "state.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["position"])["standing"]["step"] == 9
    assert (interrupted / "state.safetensors.part").exists()
    resumed = fit(path, data, interrupted, quiet=True, resume=True)
    export(interrupted, tmp_path / "b")
    assert not list(interrupted.glob("state.safetensors*"))
    assert resumed.model_dump(exclude={"cpu_seconds"}) == whole.model_dump(exclude={"cpu_seconds"})
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


@pytest.mark.parametrize("changes", [{"lora": {"rank": 4}}, {"word_dropout": 0.2}], ids=["lora", "word dropout"])
def test_factors_and_dropped_words_are_those_of_a_run_that_was_not_interrupted(
    data: Path, base: Path, tmp_path: Path, recipe: Callable[..., Path], changes: dict[str, Any]
) -> None:
    assert_resumed_equals_whole(recipe(encoder=str(base), **changes), data, tmp_path, step=13)


@pytest.mark.parametrize("method", ["uncertainty", "dwa", "famo", "random", "pcgrad", "mgda", "imtl"])
def test_what_weighs_the_tasks_goes_on_as_in_a_run_that_was_not_interrupted(
    few: Path, tmp_path: Path, write_recipe: Callable[..., Path], method: str
) -> None:
    changes = {"budget": {"steps": 8, "evaluations": 1}, "trackers": [], "probe": False, "dropout": 0.1}
    path = write_recipe(tasks=TASKS, weights=method, save_minutes=0, **changes)
    assert_resumed_equals_whole(path, few, tmp_path, step=7)


def test_an_interrupted_run_is_exported_as_far_as_it_got_and_goes_on_afterwards(
    data: Path, tmp_path: Path, recipe: Callable[..., Path]
) -> None:
    path = recipe()
    fit_until(8, path, data, tmp_path / "run", seed=3)
    with pytest.raises(SetupError, match="the run was interrupted; `murmura train --resume` goes on with it"):
        export(tmp_path / "run", tmp_path / "model")
    app = typer.Typer()
    app.command()(commands.train)
    arguments = [str(path), "--data", str(data), "--out", str(tmp_path / "model"), "--run", str(tmp_path / "run")]
    shown = CliRunner().invoke(app, [*arguments, "--quiet", "--finish"], catch_exceptions=False)
    sentence = "The training was interrupted after 7 of 20 steps; these are the weights of step 7."
    assert f"note: {sentence}" in shown.output
    assert sentence in (tmp_path / "model" / "ATTRIBUTION.md").read_text()
    record = RunFolder(tmp_path / "run").record()
    assert (record.interrupted, record.steps, record.planned_steps, record.best_step) == (True, 7, 20, 7)
    resumed = fit(path, data, tmp_path / "run", quiet=True, resume=True)
    assert (resumed.interrupted, resumed.steps, resumed.seed) == (False, 20, 3)
    assert fit(path, data, tmp_path / "run", quiet=True, resume=True) == resumed


def test_a_run_does_not_go_on_with_other_data_another_recipe_or_other_processes(
    data: Path, tmp_path: Path, recipe: Callable[..., Path]
) -> None:
    path = recipe()
    with pytest.raises(SetupError, match="no interrupted run with a saved state; train without --finish"):
        fit(path, data, tmp_path / "run", quiet=True, finish=True)
    fit_until(2, path, data, tmp_path / "run")
    other = tmp_path / "other"
    other.mkdir()
    lines = (data / "train.jsonl").read_text().splitlines()
    (other / "test.jsonl").write_bytes((data / "test.jsonl").read_bytes())
    (other / "train.jsonl").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(SetupError, match="the order of the rows are not those of the run that was interrupted"):
        fit(path, other, tmp_path / "run", quiet=True, resume=True)
    with pytest.raises(SetupError, match=r"not the recipe that .* was begun with; train without --resume"):
        fit(recipe("other", max_tokens=20), data, tmp_path / "run", quiet=True, resume=True)
    state = tmp_path / "run" / "state.safetensors"
    with safe_open(state, framework="pt") as file:
        position = json.loads(file.metadata()["position"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    position["environment"]["processes"] = 2
    save_file(tensors, state, metadata={"position": json.dumps(position)})
    with pytest.raises(SetupError, match="the run began with 2 processes, now there are 1; train without --resume"):
        fit(path, data, tmp_path / "run", quiet=True, resume=True)
    state.write_bytes(b"half")
    with pytest.raises(SetupError, match="not a state of this version; train without --resume"):
        fit(path, data, tmp_path / "run", quiet=True, resume=True)
    assert fit(path, data, tmp_path / "run", quiet=True).steps == 20
