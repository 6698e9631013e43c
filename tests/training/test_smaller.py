"""A trained model is distilled into fewer layers: where it begins, what it learns, and how it compares with its teacher."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_training import RECIPE

from murmura.runtime.errors import SetupError
from murmura.runtime.model.model import Model
from murmura.schemas.manifest import HeadForm, TaskSpec
from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.fit.check_data import check_data
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import prepare
from murmura.training.model.network import logits_of
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder
from murmura.training.run_folders.smaller import read_comparison
from murmura.training.smaller.layers import choose_layers, keep_layers
from murmura.training.smaller.stage import start_smaller

WriteRecipe = Callable[..., Path]
TWO = {name: RECIPE["tasks"][name] for name in ("intent", "places")}
SHORT = {"encoder": None, "trackers": [], "probe": False, "few_rows": 0, "budget": {"steps": 4, "evaluations": 1}}


@pytest.mark.parametrize(
    ("count", "of", "keep", "kept"),
    [
        (3, 6, "even", [0, 3, 5]),
        (6, 12, "even", [0, 2, 4, 7, 9, 11]),
        (1, 6, "even", [5]),
        (3, 6, "ends", [0, 1, 5]),
        (4, 12, "ends", [0, 1, 10, 11]),
        (3, 6, "lowest", [0, 1, 2]),
        *((6, 6, keep, [0, 1, 2, 3, 4, 5]) for keep in ("even", "ends", "lowest")),
    ],
)
def test_layers_are_chosen_as_asked(count: int, of: int, keep: Any, kept: list[int]) -> None:
    assert choose_layers(count, of, keep) == kept


def test_heads_that_read_all_layers_keep_what_they_read_of_those_that_stay() -> None:
    columns = np.arange(2 * 4 * 3.0).reshape(2, 4 * 3)
    weights = {
        "encoder.layer.0.a": np.array([0]),
        "encoder.layer.2.a": np.array([2]),
        "heads.t.weight": columns,
        "heads.t.norm.mean": np.arange(12.0).reshape(4, 3),
        "heads.pooled.weight": np.zeros(1),
    }
    task = TaskSpec(name="t", kind="classification", labels=["a", "b"], head=HeadForm(layers="concat"))
    found = keep_layers(weights, [task], [0, 2])
    assert {name: array.tolist() for name, array in found.items()} == {
        "encoder.layer.0.a": [0],
        "encoder.layer.1.a": [2],
        "heads.t.weight": columns.reshape(2, 4, 3)[:, [0, 1, 3]].reshape(2, 9).tolist(),
        "heads.t.norm.mean": [[0, 1, 2], [3, 4, 5], [9, 10, 11]],
    }


def test_with_all_layers_kept_it_answers_as_the_teacher_before_training(
    data: Path, few: Path, run: Path, model_folder: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    recipe = load_recipe(write_recipe(**SHORT, smaller={"teacher": str(run), "layers": 2}))
    made = start_smaller(recipe, tmp_path / "smaller")
    begun = prepare(made, few, RunFolder(tmp_path / "run"))
    teacher = Model.load(model_folder, device="cpu")
    texts = ["send money to paris", "i lost my card in rome, please help"]
    batch = teacher.encode(texts)
    served = teacher.run(batch)
    ids = [np.array(each.rows[0].ids, np.int32) for each in batch]
    begun.model.widen()
    for at, name in enumerate(begun.model.names):
        found = np.concatenate(
            [np.atleast_2d(row) for row in logits_of(begun.model, at, ids, device="cpu", bf16=False)]
        )
        assert np.abs(found - served.values[name]).max() < 1e-4, name


def test_the_exported_graph_has_the_layers_it_says_and_the_report_compares_it_with_its_teacher(
    few: Path, model_folder: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    path = write_recipe(**{**SHORT, "tasks": TWO, "smaller": {"teacher": str(model_folder), "layers": 1}})
    record = fit(path, few, tmp_path / "m.run", quiet=True)
    assert record.smaller is not None
    assert (record.smaller.layers, record.smaller.of) == ([1], 2)
    assert {name: teacher.folder for name, teacher in record.teachers.items()} == dict.fromkeys(TWO, str(model_folder))
    manifest = export(tmp_path / "m.run", tmp_path / "m")
    layers = []
    for folder in (tmp_path / "m", model_folder):
        graph = onnx.load(folder / "model.ragged.onnx").graph
        layers.append(sum(node.op_type == "Softmax" for node in graph.node))
    assert manifest.encoder.layers == 1
    assert layers == [1, 2]
    said: list[str] = []
    scores = evaluate(tmp_path / "m", few, print_line=said.append)
    found = read_comparison(tmp_path / "m.run")
    assert found is not None
    assert [(each.task, each.rows, each.set) for each in found.tasks] == [
        ("intent", 60, "test"),
        ("places", 60, "test"),
    ]
    assert found.tasks[1].student == pytest.approx(scores["places"]["test"].figures["f1"])
    assert found.speed > 0
    assert any(
        re.fullmatch(r"1 of the teacher's 2 layers: [\d.]+ % of its mean score at [\d.]+ times its speed", line)
        for line in said
    )
    for name in ("report.md", "report.html"):
        assert "1 of " in (tmp_path / "m" / name).read_text()
    assert "Against its teacher" in (tmp_path / "m" / "report.html").read_text()


def test_an_interrupted_one_goes_on_to_the_same_bytes(
    few: Path, model_folder: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from murmura.training.fit import gradient

    keys = {**SHORT, "tasks": {"intent": TWO["intent"]}, "save_minutes": 0}
    path = write_recipe(**keys, smaller={"teacher": str(model_folder), "layers": 1, "gold": [0, 1]})
    fit(path, few, tmp_path / "whole", quiet=True)
    collate, calls = gradient.collate, []

    def stop(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return collate(*given)

    with monkeypatch.context() as patch:
        patch.setattr(gradient, "collate", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(path, few, tmp_path / "run", quiet=True)
    fit(path, few, tmp_path / "run", quiet=True, resume=True)
    name = "checkpoint.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def refuse_first(recipe: Path, data: Path) -> None:
    for problem in check_data(load_recipe(recipe), data).problems:
        raise SetupError(problem)


@pytest.mark.parametrize(
    ("smaller", "changes", "message"),
    [
        ({"layers": 3}, {}, r"smaller\.layers: 3, but .* has 2; expected at most 2"),
        ({"teacher": "nowhere", "layers": 1}, {}, r"smaller\.teacher: nowhere: no model and no finished run"),
        ({"layers": 1, "keep": "odd"}, {}, r"smaller\.keep: "),
        ({"layers": 1, "width": 16}, {}, r"smaller\.width: "),
        ({"layers": 1, "gold": 1}, {}, r"smaller: `gold: 1` leaves nothing for teachers"),
        ({"layers": 1}, {"encoder": "somewhere"}, r"`encoder` stands beside `smaller`"),
        ({"layers": 1}, {"teachers": "somewhere"}, r"`teachers` stands beside `smaller`"),
        ({"layers": 1}, {"pooled": "distilled"}, r"pooled: distilled keeps vectors of the encoder before"),
        ({"layers": 1}, {"tasks": {"queue": TWO["intent"]}}, r"teachers: .* has no task queue; it has intent, topics"),
    ],
)
def test_what_cannot_become_smaller_is_refused_in_one_line_before_training(
    few: Path, run: Path, write_recipe: WriteRecipe, smaller: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    path = write_recipe(**{**SHORT, "tasks": TWO, "smaller": {"teacher": str(run), **smaller}, **changes})
    with pytest.raises(SetupError, match=message) as caught:
        refuse_first(path, few)
    assert "\n" not in str(caught.value)
