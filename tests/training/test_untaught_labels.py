"""Rows of one label alone teach the other labels nothing: refused, unless something else teaches these."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_training import write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.fit.check_data import check_data
from murmura.training.prepare.tasks import read_tasks
from murmura.training.recipe.recipe import Recipe, load_recipe
from murmura.training.smaller.stage import start_smaller

LABELS = ["lost", "transfer", "other"]
TASK = {"train": "train.jsonl", "labels": LABELS, "out_of_scope": "other"}
DISTANCE = {"label": "other", "by": "distance"}
WriteRecipe = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "train.jsonl", [{"text": f"lost card {n}", "label": "lost"} for n in range(40)])
    return tmp_path


def read(folder: Path, *, soft: bool = False, name: str = "intent", task: dict[str, Any] = TASK, **keys: Any) -> None:
    task = task | ({"train": {"path": "train.jsonl", "soft": "all"}} if soft else {})
    read_tasks(Recipe.model_validate({**keys, "tasks": {name: task}}), folder)


def test_a_teacher_teaches_labels_without_rows(folder: Path) -> None:
    read(folder, teachers={"models": {"intent": "a model"}, "gold": 0})
    read(folder, teachers={"models": "a model"})
    two = {"intent": TASK, "mood": TASK}
    with pytest.raises(SetupError, match=r"tasks\.mood\.train: .* none has 'transfer', 'other'; expected rows of two"):
        read_tasks(Recipe.model_validate({"teachers": {"models": {"intent": "a model"}}, "tasks": two}), folder)


def test_a_smaller_model_has_the_labels_of_its_teacher(folder: Path, run: Path) -> None:
    recipe = Recipe.model_validate({"smaller": {"teacher": str(run), "layers": 1}, "tasks": {"intent": TASK}})
    read_tasks(start_smaller(recipe, folder / "smaller"), folder)


def test_soft_rows_hold_answers_with_all_labels(folder: Path) -> None:
    read(folder, soft=True)


def test_a_model_to_begin_with_teaches_the_labels_that_its_head_of_the_task_knows(
    folder: Path, model_folder: Path
) -> None:
    encoder, expected = str(model_folder), r"train: all rows have the label 'lost', and none has {}; expected"
    read(folder, encoder=encoder)
    more = TASK | {"labels": [*LABELS, "loans"]}
    with pytest.raises(SetupError, match=expected.format("'loans'")):
        read(folder, encoder=encoder, task=more)
    every = expected.format("'transfer', 'other'")
    with pytest.raises(SetupError, match=every):
        read(folder, encoder=encoder, name="mood")
    with pytest.raises(SetupError, match=every):
        read(folder, encoder=encoder, task=TASK | {"head": {"pooling": "mean_max"}})
    with pytest.raises(SetupError, match=expected.format("'transfer'")):  # the head of these two begins anew
        read(folder, encoder=encoder, task=TASK | {"labels": LABELS[:2], "out_of_scope": None})


def test_a_folder_with_a_damaged_manifest_is_no_model_that_knows_labels(
    folder: Path, base: Path, write_recipe: WriteRecipe
) -> None:
    damaged = folder / "damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{}")
    problems = check_data(load_recipe(write_recipe(encoder=str(damaged), tasks={"intent": TASK})), folder).problems
    assert any("manifest.json" in problem for problem in problems)


def test_of_a_class_by_distance_the_other_labels_still_need_rows(folder: Path) -> None:
    with pytest.raises(SetupError, match=r"and none has 'transfer'; expected"):
        read(folder, task=TASK | {"out_of_scope": DISTANCE})
    read(folder, task=TASK | {"labels": ["lost", "other"], "out_of_scope": DISTANCE})
