"""Seeds: every number that a recipe, a job or an option takes is one for all generators; others are refused in one line."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny_few_rows import INTENT
from tiny_study import SHORT, tune
from typer.testing import CliRunner

from murmura.runtime.errors import SetupError
from murmura.training.cli import few_shot, pretrain, suggest, train, transfer
from murmura.training.fit.loop import fit
from murmura.training.recipe.job import read_job
from murmura.training.recipe.keys.seeds import MOST_SEED
from murmura.training.recipe.recipe import load_recipe

WriteRecipe = Callable[..., Path]
WRONG = [-1, 2**63, 2**70]


@pytest.mark.parametrize("seed", WRONG)
@pytest.mark.parametrize("key", ["seed", "data_seed", "tune"])
def test_a_number_that_is_no_seed_is_refused_by_its_key(write_recipe: WriteRecipe, key: str, seed: int) -> None:
    keys: dict[str, Any] = {key: seed}
    if key == "tune":
        keys = {"tune": {"space": {"dropout": [0.0, 0.1]}, "seed": seed}}
    with pytest.raises(
        SetupError, match=rf"seed: expected a whole number from 0 to {MOST_SEED}, found {seed}$"
    ) as found:
        load_recipe(write_recipe(**keys))
    assert "\n" not in str(found.value)


def test_the_recipe_of_a_finished_training_is_read_with_the_seed_that_it_had(write_recipe: WriteRecipe) -> None:
    assert load_recipe(write_recipe(seed=-1, data_seed=-3), past=True).seed == -1


@pytest.mark.parametrize(("seed", "seeds"), [(-1, 1), (2**63, 1), (MOST_SEED, 2)])
def test_so_is_one_of_a_job(tmp_path: Path, seed: int, seeds: int) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(f"model: {{folder: m}}\nfeedback: {{data: d}}\nfit: {{seed: {seed}}}\ngate: {{seeds: {seeds}}}\n")
    with pytest.raises(SetupError, match=r"fit\.seed: (expected a whole number|no 2 seeds)"):
        read_job(job)


@pytest.mark.parametrize("seed", WRONG)
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (few_shot.few_shot, ["a.csv", "--out", "m", "--seed"]),
        (train.train, ["r.yaml", "--seed"]),
        (pretrain.pretrain, ["r.yaml", "--seed"]),
        (suggest.suggest, ["a.txt", "--model", "m", "--out", "b.csv", "--seed"]),
    ],
)
def test_so_is_one_of_an_option(command: Callable[..., None], words: list[str], seed: int) -> None:
    app = typer.Typer()
    app.command()(command)
    found = CliRunner().invoke(app, [*words, str(seed)])
    assert found.exit_code == 2
    expected = "greater than or equal to 0" if seed < 0 else f"less than or equal to {MOST_SEED}"
    assert f"Invalid value for '--seed': Input should be {expected}" in " ".join(found.stderr.replace("│", "").split())


@pytest.mark.parametrize("seed", [*map(str, WRONG), "9" * 9999])
def test_so_are_those_of_a_comparison(write_recipe: WriteRecipe, seed: str) -> None:
    with pytest.raises(SetupError, match=rf"--seeds: expected whole numbers from 0 to {MOST_SEED}, found '"):
        transfer.transfer(write_recipe(), seeds=["0", seed])


@pytest.mark.parametrize("seed", [2**32, MOST_SEED])
def test_every_seed_trains_looks_for_label_errors_and_searches(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe, seed: int
) -> None:
    keys = {"seed": seed, "data_seed": seed, "report": {"label_errors": True}, "pooled": "distilled"}
    keys |= {"encoder": str(base), "tasks": {"intent": INTENT}, "budget": {"steps": 2, "evaluations": 1}}
    record = fit(write_recipe(**keys), few, tmp_path / "run", quiet=True)
    assert record.seed == seed
    assert (tmp_path / "run" / "label_errors.json").is_file()
    space = {"space": {"optimiser.head_lr": [1e-2, 2e-2]}, "trials": 1, "seed": seed}
    found, _ = tune(write_recipe(**{**SHORT, "seed": seed, "tune": space}), few, tmp_path / "study")
    assert found.best is not None
    assert math.isfinite(found.best.values[0])
