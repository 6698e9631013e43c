"""A smaller model moves to the answers of its teacher, also where the labels say otherwise."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax
from tiny_training import RECIPE, rows

from murmura.runtime.model.model import Model
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import prepare
from murmura.training.model.network import logits_of
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder
from murmura.training.smaller.stage import start_smaller

Logits = Mapping[str, NDArray[np.float32]]
TASKS = {name: RECIPE["tasks"][name] for name in ("intent", "places")}
ROWS = rows(60, 2)


@pytest.fixture(scope="module")
def teacher(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is sure of other labels than those of the rows, since its heads give each label the logit of the one before.
    What a smaller one lacks counts: the first layer turns the signs of its states, and neurons add five times as much.
    """
    made = tmp_path_factory.mktemp("smaller")
    folder = RunFolder(shutil.copytree(run, made / "teacher.run"))
    weights = folder.weights()
    for name in TASKS:
        for part in ("weight", "bias"):
            weights[f"heads.{name}.{part}"] = np.roll(weights[f"heads.{name}.{part}"], 1, axis=0)
    for part in ("weight", "bias"):
        weights[f"encoder.layer.0.output.LayerNorm.{part}"] *= -1
    for layer in range(2):
        weights[f"encoder.layer.{layer}.output.dense.weight"] *= 5
    folder.save_record(folder.record(), weights)
    export(folder.path, made / "teacher")
    return made / "teacher"


def served(folder: Path) -> Logits:
    """What a model answers the texts: logits [N, C] of each task, of places by token."""
    model = Model.load(folder, device="cpu")
    return model.run(model.encode([row["text"] for row in ROWS])).values


def distance(teacher: Logits, student: Logits, task: str) -> float:
    """The mean of KL(teacher || student)."""
    one, other = (log_softmax(each[task].astype(float), axis=-1) for each in (teacher, student))
    return float((np.exp(one) * (one - other)).sum(-1).mean())


@pytest.mark.parametrize("size", [{"layers": 1}, {"intermediate_size": 16}], ids=["fewer layers", "fewer neurons"])
def test_the_students_answers_move_to_its_teachers_also_where_the_labels_say_otherwise(
    data: Path, teacher: Path, tmp_path: Path, write_recipe: Callable[..., Path], size: dict[str, int]
) -> None:
    keys = {"encoder": None, "trackers": [], "probe": False, "few_rows": 0, "budget": {"steps": 100, "evaluations": 1}}
    path = write_recipe(tasks=TASKS, smaller={"teacher": str(teacher), "gold": 0, **size}, **keys)
    begun = prepare(start_smaller(load_recipe(path), tmp_path / "smaller"), data, RunFolder(tmp_path / "begun"))
    begun.model.widen()
    ids = [np.array(each.rows[0].ids, np.int32) for each in Model.load(teacher).encode([row["text"] for row in ROWS])]
    before = {
        name: np.concatenate([np.atleast_2d(row) for row in logits_of(begun.model, at, ids, device="cpu", bf16=False)])
        for at, name in enumerate(begun.model.names)
    }
    fit(path, data, tmp_path / "run", quiet=True)
    export(tmp_path / "run", tmp_path / "student")
    taught, after = served(teacher), served(tmp_path / "student")
    labels = Model.load(teacher).tasks["intent"].labels
    said, learned = ([labels[at] for at in each["intent"].argmax(1)] for each in (taught, after))
    wrong = [at for at, row in enumerate(ROWS) if said[at] != row["label"]]
    assert len(wrong) > len(ROWS) / 3
    assert sum(learned[at] == said[at] for at in wrong) > 0.9 * len(wrong)
    for name in TASKS:
        assert distance(taught, after, name) < 0.2 * distance(taught, before, name), name
