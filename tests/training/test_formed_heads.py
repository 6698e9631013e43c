"""Heads that mix layers, pool otherwise or have a hidden layer: learned, exported, stored as a delta, grown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from tiny_training import rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.runtime.model.deltas.delta import assemble
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.model.model import Model
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import Fitting, prepare
from murmura.training.fit.start.grow import CLASS_MEAN
from murmura.training.recipe.keys.tasks import Task, describe_form
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]
HEADS: dict[str, dict[str, Any]] = {
    "intent": {"layers": "mix", "pooling": "mean_max", "hidden": 16},
    "topics": {"layers": "concat", "pooling": "mean_max"},
    "places": {"layers": "mix", "hidden": 16},
}
TASKS: dict[str, Any] = {
    "intent": {"train": "train.jsonl", "head": HEADS["intent"]},
    "topics": {
        "kind": "multi_label",
        "columns": {"label": "topics"},
        "train": "train.jsonl",
        "head": HEADS["topics"],
    },
    "places": {"kind": "tagging", "train": "train.jsonl", "head": HEADS["places"]},
}


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, their run, and the model of it: whole, and as a delta."""
    place = tmp_path_factory.mktemp("formed")
    write_jsonl(place / "train.jsonl", rows(240, 1))
    keys = {"optimiser": {"encoder_lr": 3e-3, "head_lr": 1e-2}, "budget": {"epochs": 6, "evaluations": 1}}
    recipe = {"encoder": str(base), "max_tokens": 24, "threads": 1, "few_rows": 0, "tasks": TASKS, **keys}
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    fit(place / "recipe.yaml", place, place / "run", quiet=True)
    export(place / "run", place / "model", graphs=("ragged", "padded"))
    export(place / "run", place / "delta", delta=True)
    return place


def test_they_learn_and_are_served_as_torch_computes_them_whole_and_as_a_delta(folder: Path, base: Path) -> None:
    record = RunFolder(folder / "run").record()
    assert min(scores["main"] for scores in record.validation.values()) > 0.8
    assemble(folder / "delta", base, folder / "assembled")  # which reproduces the reference sample
    texts = [row["text"] for row in rows(30, 7)]
    served = [
        Model.load(folder / name, device="cpu", graph=form).predict(texts)
        for name, form in (("model", "ragged"), ("model", "padded"), ("assembled", "ragged"))
    ]
    labels = [[(each["intent"]["label"], len(each["places"]["spans"])) for each in answers] for answers in served]
    assert labels[0] == labels[1] == labels[2]


def test_the_manifest_and_the_run_say_what_share_each_layer_has(folder: Path) -> None:
    record, weights = RunFolder(folder / "run").record(), RunFolder(folder / "run").weights()
    for spec in (*record.tasks, *read_manifest(folder / "model").tasks):
        assert spec.head is not None
        if spec.head.layers == "concat":
            assert spec.head.shares is None
            continue
        assert spec.head.shares is not None
        learned = np.exp(weights[f"heads.{spec.name}.mix.weight"])
        np.testing.assert_allclose(spec.head.shares, learned / learned.sum(), atol=1e-4)
        assert max(spec.head.shares) - min(spec.head.shares) > 0.01


def go_on(folder: Path, tmp_path: Path, write_recipe: WriteRecipe, task: dict[str, Any], **keys: Any) -> Fitting:
    write_jsonl(tmp_path / "train.jsonl", rows(60, 3) + [{"text": f"a loan of {n}", "label": "loan"} for n in range(9)])
    recipe = write_recipe(encoder=str(folder / "model"), tasks={"intent": task}, few_rows=0, **keys)
    return prepare(load_recipe(recipe), tmp_path, RunFolder(tmp_path / "run"))


def test_one_that_grows_keeps_its_layers_and_begins_the_new_row_at_the_mean_of_its_texts(
    folder: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    spec = read_manifest(folder / "model").task("intent")
    form = describe_form(spec)
    assert form["head"] == HEADS["intent"]
    run = go_on(folder, tmp_path, write_recipe, {"train": "train.jsonl", "head": form["head"]})
    assert run.grown == {"intent": {"loan": CLASS_MEAN}}
    before, after = load_file(folder / "model" / "model.safetensors"), run.model.head_weights()
    places = [run.tasks[0].labels.index(label) for label in spec.labels]
    for name in ("hidden.weight", "hidden.bias", "mix.weight", "mix.scale", "norm.mean", "norm.deviation"):
        assert np.array_equal(before[f"heads.intent.{name}"], after[f"heads.intent.{name}"])
    assert np.array_equal(before["heads.intent.weight"], after["heads.intent.weight"][places])


def test_a_head_of_another_form_begins_anew(folder: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    run = go_on(folder, tmp_path, write_recipe, {"train": "train.jsonl", "head": {"hidden": 16}})
    assert run.grown == {}
    assert run.model.head_weights()["heads.intent.hidden.weight"].shape == (16, 32)


def test_a_head_that_says_nothing_is_refused(tmp_path: Path, write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(tasks={"intent": {"train": "train.jsonl", "head": {"pooling": "mean"}}})
    with pytest.raises(SetupError, match="a linear head on the mean of the last layer is what a task has without"):
        load_recipe(recipe)
    assert Task.model_validate({"train": "x.csv", "head": {"hidden": 8}}).form_of_head is not None
