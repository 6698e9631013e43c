"""Several processes train one network: each reads its rows of a step, and all take the same step."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from tiny_training import RECIPE, rows, write_jsonl

from murmura.training.fit.loop import fit
from murmura.training.run_folders.run_folder import RunFolder

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[1] / "several_processes.py"
WEIGHTS = "checkpoint.safetensors"
INTENT = {"intent": RECIPE["tasks"]["intent"]}
RUNS = ("together", "whole", "run,fail", "run,apart", "run,resume", "strange,other", "still", "frozen,freeze")


def write_recipe(path: Path, **changes: Any) -> Path:
    """Write a recipe of twenty steps at the default learning rates, whose state is written after each step."""
    budget = {"steps": 20, "evaluations": 2}
    recipe = RECIPE | {"optimiser": {}, "precision": "fp32", "budget": budget, "save_minutes": 0} | changes
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes. `together` has three tasks, no dropout and a row less in the second step than processes."""
    folder = tmp_path_factory.mktemp("processes")
    for name, seed in (("data", 1), ("other", 8)):
        (folder / name).mkdir()
        write_jsonl(folder / name / "train.jsonl", rows(360, seed))
        write_jsonl(folder / name / "test.jsonl", rows(60, 2))
    recipes = {"together": write_recipe(folder / "three.yaml")}
    one = write_recipe(folder / "one.yaml", tasks=INTENT, dropout=0.1, budget={"steps": 8, "evaluations": 2})
    recipes["still"] = write_recipe(
        folder / "still.yaml",
        tasks=INTENT,
        optimiser={"encoder_lr": 1e-12, "head_lr": 1e-12},
        budget={"steps": 40, "evaluations": 20, "patience": 2},
    )
    runs = [f"{recipes.get(run, one)},{folder}/{run}" for run in RUNS]
    command = [sys.executable, str(SCRIPT), str(folder / "data"), *runs]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
    (folder / "printed").write_text(ended.stdout)
    return folder


@pytest.fixture(scope="module")
def printed(folder: Path) -> dict[str, str]:
    """What each process of each run printed."""
    lines = (folder / "printed").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines)  # type: ignore[misc]


def weights(folder: Path) -> np.ndarray:
    arrays = load_file(folder / WEIGHTS)
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


def test_two_processes_train_what_one_does(folder: Path) -> None:
    alone = fit(folder / "three.yaml", folder / "data", folder / "alone", quiet=True)
    assert np.abs(weights(folder / "together") - weights(folder / "alone")).max() < 1e-5
    record = RunFolder(folder / "together").record()
    assert (record.steps, record.best_step, record.validation) == (20, alone.best_step, alone.validation)
    assert record.environment is not None
    assert record.environment.processes == 2
    assert record.cpu_seconds > 0


def test_the_first_process_alone_prints_and_both_have_the_record(printed: dict[str, str]) -> None:
    assert (printed["together  0"], printed["together  1"]) == ("20 steps, 3 lines", "20 steps, 0 lines")


def test_a_failure_in_one_process_ends_the_others(printed: dict[str, str]) -> None:
    assert printed["run fail 1"].startswith(
        "OutOfMemory: step 3: out of memory with 16 rows (intent 16) in one of 2 processes,"
    )
    assert "Error" in printed["run fail 0"]


def test_a_process_does_not_wait_for_ever_for_one_that_stands_still(printed: dict[str, str]) -> None:
    assert "Error" in printed["frozen freeze 0"]
    assert "frozen freeze 1" not in printed


def test_a_run_of_two_processes_goes_on_with_two_to_the_same_bytes(folder: Path, printed: dict[str, str]) -> None:
    assert printed["run resume 0"].startswith("8 steps")
    assert (folder / "run" / WEIGHTS).read_bytes() == (folder / "whole" / WEIGHTS).read_bytes()


def test_a_process_that_goes_on_from_another_step_is_named(printed: dict[str, str]) -> None:
    assert printed["run apart 1"] == (
        "SetupError: process 1 goes on from step 0, process 0 from step 2; every process needs the same run folder"
    )
    assert "Error" in printed["run apart 0"]


def test_a_process_that_reads_other_rows_is_named(folder: Path, printed: dict[str, str]) -> None:
    assert printed["strange other 1"].startswith(
        "SetupError: process 1 reads other rows or another encoder than process 0; every process needs the same data"
    )
    assert "Error" in printed["strange other 0"]
    assert not (folder / "strange" / WEIGHTS).exists()


def test_all_processes_end_early_when_the_run_gets_no_better(printed: dict[str, str]) -> None:
    assert [printed[f"still  {number}"].split(",")[0] for number in (0, 1)] == ["6 steps", "6 steps"]


def test_torchrun_starts_the_command(folder: Path) -> None:
    binaries = Path(sys.executable).parent
    few = {"budget": {"steps": 3, "evaluations": 1}, "probe": False, "trackers": [], "save_minutes": 5}
    recipe = write_recipe(folder / "few.yaml", tasks=INTENT, **few)
    command = [binaries / "torchrun", "--standalone", "--nproc-per-node", "2", "--no-python", binaries / "murmura"]
    command += ["train", recipe, "--data", folder / "data", "--out", folder / "model", "--quiet"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert ended.returncode == 0, ended.stderr
    lines = [line.split(" ")[0] for line in ended.stdout.splitlines()]
    assert [word for word in lines if word in {"trained", "exported", "serve"}] == ["trained", "exported", "serve"]
    assert (folder / "model" / "report.md").is_file()
