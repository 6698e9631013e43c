"""A task with one label is a detector: the label or none, from reading to serving."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score
from tiny_training import rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.runtime.model.model import Model
from murmura.schemas.manifest import TaskSpec
from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.kinds.registry import KINDS
from murmura.training.prepare.tasks import read_tasks
from murmura.training.recipe.recipe import load_recipe

WriteRecipe = Callable[..., Path]
TASK = {"kind": "multi_label", "train": "train.jsonl", "test": "test.jsonl"}


def flagged(count: int, seed: int) -> list[dict[str, Any]]:
    return [{"text": row["text"], "label": ["lost"] * (row["label"] == "lost")} for row in rows(count, seed)]


def test_a_detector_is_trained_exported_scored_and_served(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    write_jsonl(tmp_path / "train.jsonl", flagged(240, 1))
    write_jsonl(tmp_path / "test.jsonl", flagged(60, 2))
    recipe = write_recipe(tasks={"alarm": TASK}, budget={"epochs": 6, "evaluations": 1})
    record = fit(recipe, tmp_path, tmp_path / "run", quiet=True)
    assert record.tasks[0].labels == ["lost"]
    assert record.validation["alarm"]["micro_f1"] >= 0.9
    export(tmp_path / "run", tmp_path / "model", graphs=("ragged", "padded"))
    figures = evaluate(tmp_path / "model", tmp_path)["alarm"]["test"].figures
    assert figures["micro_f1"] == figures["macro_f1"] >= 0.9
    assert "lost" in (tmp_path / "model" / "report.md").read_text()
    answered = Model.load(tmp_path / "model").predict(["somebody stole my card in rome", "who won the game in paris"])
    assert [[item["label"] for item in each["alarm"]["labels"]] for each in answered] == [["lost"], []]


@pytest.mark.parametrize(("labels", "missing"), [(["lost"], "without"), ([], "with")])
def test_a_detector_needs_rows_with_its_label_and_without(
    labels: list[str], missing: str, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"text": f"text {n}", "label": labels} for n in range(20)])
    recipe = write_recipe(tasks={"alarm": {"kind": "multi_label", "train": "train.jsonl", "labels": ["lost"]}})
    with pytest.raises(SetupError, match=rf"alarm\.train: no training row is {missing} the only label, 'lost'"):
        read_tasks(load_recipe(recipe), tmp_path)


@pytest.mark.parametrize("labels", [1, 2, 5])
def test_f1_is_that_of_the_labels_whatever_their_number(labels: int) -> None:
    draw = np.random.default_rng(labels)
    logits, truth = draw.normal(size=(50, labels)), (draw.random((50, labels)) > 0.7).astype(float)
    spec = TaskSpec(name="t", kind="multi_label", labels=[f"l{n}" for n in range(labels)])
    found = KINDS.get("multi_label").metrics([*logits], [*truth], spec)
    named = (logits > 0).astype(int)
    assert found["micro_f1"] == pytest.approx(f1_score(truth.ravel(), named.ravel()))
    each = [f1_score(truth[:, at], named[:, at]) for at in range(labels)]
    assert found["macro_f1"] == pytest.approx(np.mean(each))
