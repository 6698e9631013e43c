"""The rows of a step may go through the network in parts: the gradient and the figures are those of the whole step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import RECIPE, rows, write_jsonl

from murmura.training.fit.setup import Fitting, prepare
from murmura.training.fit.steps.gradient import StepFigures, asked_of, compute_gradient, parts_of_step
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

WEIGHTS = [0.5, 3.0, 8.0]


def gradient(run: Fitting, step: int, parts: int) -> tuple[torch.Tensor, StepFigures]:
    """Return the gradient of a step before the clip, all parameters in one vector, and its figures."""
    run.recipe = run.recipe.model_copy(update={"accumulate": parts})
    run.model.zero_grad()
    found = compute_gradient(run, run.plan[step], WEIGHTS, measured=True)
    return torch.cat(
        [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in run.model.parameters()]
    ), found


@pytest.fixture
def prepared(data: Path, tmp_path: Path, write_recipe: Callable[..., Path]) -> Callable[..., Fitting]:
    def make(folder: Path = data, **changes: Any) -> Fitting:
        changes = {"optimiser": {"clip": 1e9}, "precision": "fp32", **changes}
        return prepare(load_recipe(write_recipe(**changes)), folder, RunFolder(tmp_path / "run"))

    return make


@pytest.mark.parametrize("parts", [2, 5, 64], ids=["two", "uneven", "more parts than rows"])
def test_the_gradient_of_a_step_in_parts_is_that_of_the_whole_step(
    prepared: Callable[..., Fitting], parts: int
) -> None:
    run = prepared()
    run.model.train()
    for step in (0, len(run.plan) - 1):
        whole, expected = gradient(run, step, 1)
        in_parts, found = gradient(run, step, parts)
        assert float((in_parts - whole).norm() / whole.norm()) < 1e-5
        assert found.losses == pytest.approx(expected.losses, rel=1e-5)
        assert found.compared.norms == pytest.approx(expected.compared.norms, rel=1e-4)
        assert found.compared.cosines == pytest.approx(expected.compared.cosines, abs=1e-4)
        assert (found.norm, found.tokens) == (pytest.approx(expected.norm, rel=1e-5), expected.tokens)


def test_every_row_is_in_one_part_and_words_count_where_a_task_asks_for_words(prepared: Callable[..., Fitting]) -> None:
    run = prepared(accumulate=3)
    rows = run.plan[0]
    parts = list(parts_of_step(run, rows))
    for task, every in rows:
        assert sorted(row for part, _ in parts for row in dict(part).get(task, [])) == sorted(every)
        assert sum(shares.get(task, 0.0) for _, shares in parts) == pytest.approx(1.0)
    places = list(RECIPE["tasks"]).index("places")
    assert asked_of(run, places, dict(rows)[places]) > len(dict(rows)[places])


def test_soft_rows_among_others_are_weighted_alike_in_parts(
    model_folder: Path, prepared: Callable[..., Fitting], tmp_path: Path
) -> None:
    for name in ("hard", "soft"):
        write_jsonl(tmp_path / f"{name}.jsonl", rows(60, 3))
    tasks = {
        name: {**task, "train": [{"path": "hard.jsonl"}, {"path": "soft.jsonl", "soft": "all"}], "test": None}
        for name, task in RECIPE["tasks"].items()
    }
    run = prepared(tmp_path, encoder=str(model_folder), tasks=tasks)
    run.model.eval()
    with torch.no_grad():
        for parameter in run.model.parameters():  # what the soft rows hold on to is no longer what is answered
            parameter.mul_(1.1)
    whole, _ = gradient(run, 0, 1)
    in_parts, _ = gradient(run, 0, 3)
    assert float((in_parts - whole).norm() / whole.norm()) < 1e-5
