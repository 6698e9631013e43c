"""A trained model is distilled into a smaller one: where it begins, what it learns, and how it compares with its teacher."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from stopped_training import assert_resumed_equals_whole
from tiny_replies import TASK, reply_rows
from tiny_training import RECIPE, rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.runtime.model.model import Model
from murmura.schemas.manifest import HeadForm, TaskSpec
from murmura.training.cli.train import train
from murmura.training.evaluate import against_teacher
from murmura.training.evaluate.against_teacher import choose_timed, compare_with_teacher, serve_on_cpu
from murmura.training.evaluate.evaluate import answers, evaluate, score_task
from murmura.training.export.export import export
from murmura.training.fit.check_data import check_data
from murmura.training.fit.checkpoint import checkpoint_weights
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import prepare
from murmura.training.model.network import logits_of
from murmura.training.recipe.keys.smaller import Smaller
from murmura.training.recipe.recipe import Encoder, load_recipe
from murmura.training.run_folders.run_folder import RunFolder, SmallerRecord, TeacherRecord
from murmura.training.run_folders.smaller import read_comparison
from murmura.training.run_folders.trained_model import open_trained
from murmura.training.smaller.layers import choose_layers, keep_layers
from murmura.training.smaller.neurons import keep_neurons
from murmura.training.smaller.stage import start_smaller, write_smaller

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


def test_the_neurons_of_greatest_weight_stay_in_encoders_and_decoders() -> None:
    up = np.array([[3.0, 4.0], [0.1, 0.0], [0.0, 2.0], [5.0, 0.0]])
    bias, down = np.array([0.0, 0.1, 9.0, 0.0]), np.array([[0.01, 9.0, 1.0, 2.0], [0.0, 9.0, 0.0, 0.0]])
    weights = {
        "encoder.layer.1.intermediate.dense.weight": up,
        "encoder.layer.1.intermediate.dense.bias": bias,
        "encoder.layer.1.output.dense.weight": down,
        "encoder.layer.1.output.dense.bias": np.zeros(2),
        "encoder.layer.1.attention.output.dense.weight": np.eye(4),
        "heads.reply.layers.0.feed_forward.up.weight": up[::-1],
        "heads.reply.layers.0.feed_forward.up.bias": bias[::-1],
        "heads.reply.layers.0.feed_forward.down.weight": down[:, ::-1],
    }
    found = keep_neurons(weights, 2)
    kept = [2, 3]
    encoder, decoder = "encoder.layer.1.", "heads.reply.layers.0.feed_forward."
    assert np.array_equal(found[encoder + "intermediate.dense.weight"], up[kept])
    assert np.array_equal(found[encoder + "intermediate.dense.bias"], bias[kept])
    assert np.array_equal(found[encoder + "output.dense.weight"], down[:, kept])
    assert np.array_equal(found[decoder + "up.weight"], up[kept][::-1])
    assert np.array_equal(found[decoder + "up.bias"], bias[kept][::-1])
    assert np.array_equal(found[decoder + "down.weight"], down[:, kept][:, ::-1])
    assert found[encoder + "attention.output.dense.weight"].shape == (4, 4)
    assert all(np.array_equal(array, weights[name]) for name, array in keep_neurons(weights, 4).items())


def test_with_all_layers_kept_it_answers_as_the_teacher_before_training(
    data: Path, few: Path, run: Path, model_folder: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    write_smaller(tmp_path / "smaller", open_trained(run), Smaller(teacher=str(run), layers=2))
    made = load_recipe(write_recipe(**{**SHORT, "encoder": str(tmp_path / "smaller")}))
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
    teacher = shutil.copytree(model_folder, tmp_path / "teacher")
    path = write_recipe(**{**SHORT, "tasks": TWO, "smaller": {"teacher": str(teacher), "layers": 1}})
    record = fit(path, few, tmp_path / "m.run", quiet=True)
    assert record.smaller is not None
    assert (record.smaller.layers, record.smaller.of) == ([1], 2)
    assert {name: each.folder for name, each in record.teachers.items()} == dict.fromkeys(TWO, str(teacher))
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
    served, recipe = Model.load(teacher, device="cpu"), load_recipe(path)
    own = score_task(served, served.tasks["places"], recipe, few)["test"].figures["f1"]
    assert found.tasks[1].student == pytest.approx(scores["places"]["test"].figures["f1"])
    assert found.tasks[1].teacher == pytest.approx(own)
    assert found.quality == pytest.approx(
        sum(each.student for each in found.tasks) / sum(each.teacher for each in found.tasks)
    )
    assert found.speed > 0
    assert any(
        re.fullmatch(r"1 of the teacher's 2 layers: [\d.]+ % of its mean score at [\d.]+ times its speed", line)
        for line in said
    )
    for name in ("report.md", "report.html"):
        assert "1 of " in (tmp_path / "m" / name).read_text()
    assert "Against its teacher" in (tmp_path / "m" / "report.html").read_text()
    shutil.rmtree(teacher)
    shutil.copytree(tmp_path / "m", teacher)
    said.clear()
    evaluate(tmp_path / "m", few, print_line=said.append)
    assert any(
        "no comparison with the teacher" in line and "not the teacher that was learned from" in line for line in said
    )
    assert read_comparison(tmp_path / "m.run") is None
    assert "Against its teacher" not in (tmp_path / "m" / "report.html").read_text()


def test_a_narrower_model_answers_as_the_teacher_without_what_was_least_and_says_how_wide_it_is(
    few: Path, model_folder: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    trained = open_trained(model_folder)
    wide = trained.encoder.intermediate_size
    silent = {
        name: np.concatenate([array[: wide // 2], np.zeros_like(array[wide // 2 :])])
        for name, array in trained.weights.items()
        if ".intermediate.dense." in name
    }
    recipe = load_recipe(write_recipe(**SHORT, smaller={"teacher": str(model_folder), "intermediate_size": wide // 2}))
    assert recipe.smaller is not None
    teacher = replace(trained, weights={**trained.weights, **silent})
    write_smaller(tmp_path / "smaller", teacher, recipe.smaller)
    student = open_trained(tmp_path / "smaller")
    assert (student.encoder.intermediate_size, student.encoder.layers) == (wide // 2, trained.encoder.layers)
    texts = ["send money to paris", "i lost my card in rome, please help"]
    one, other = (serve_on_cpu(each) for each in (teacher, student))
    served, found = (each.run(each.encode(texts)).values for each in (one, other))
    assert all(np.abs(served[name] - found[name]).max() < 1e-4 for name in served)
    keys = {**SHORT, "tasks": {"intent": TWO["intent"]}, "save_minutes": 0}
    path = write_recipe(**keys, smaller={"teacher": str(model_folder), "layers": 1, "intermediate_size": 24})
    fit(path, few, tmp_path / "m.run", quiet=True)
    manifest = export(tmp_path / "m.run", tmp_path / "m")
    assert (manifest.encoder.layers, manifest.encoder.intermediate_size) == (1, 24)
    said: list[str] = []
    evaluate(tmp_path / "m", few, print_line=said.append)
    line = f"1 of the teacher's 2 layers, 24 of {wide} neurons in each: "
    assert any(each.startswith(line) for each in said)
    assert line in (tmp_path / "m/report.md").read_text()
    assert f"24 of {wide} neurons in each" in (tmp_path / "m/report.html").read_text()


def test_both_are_timed_alike_wherever_the_student_is_asked(
    model_folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = open_trained(model_folder)
    origin = TeacherRecord(folder=str(model_folder), sha256=trained.sha256)
    on_a_gpu, timed = Model.load(model_folder, device="cpu"), list[Model]()

    def time_both(teacher: Model, student: Model, texts: Any) -> tuple[float, float]:
        timed.extend([teacher, student])
        return 2.0, 1.0

    monkeypatch.setattr(against_teacher, "time_both", time_both)
    compare_with_teacher(on_a_gpu, run, SmallerRecord(teacher=origin, layers=[0, 1], of=2), [], answers)
    assert on_a_gpu not in timed
    assert [each.runner.device for each in timed] == ["cpu", "cpu"]
    texts = ["one text"]
    assert len({each.run(each.encode(texts)).values["intent"].tobytes() for each in timed}) == 1


def test_at_most_so_many_texts_are_timed_from_all_of_them() -> None:
    for count in (0, 1, 511, 512, 513, 1023, 1537):
        texts = [str(number) for number in range(count)]
        timed = choose_timed(texts)
        assert min(count, 257) <= len(timed) <= 512
        assert not texts or int(timed[-1]) >= count - 4


def test_a_head_that_learned_rows_that_were_held_back_is_known_to_have_when_it_goes_on(
    few: Path, run: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    teacher = open_trained(run)
    data = {name: report.model_copy(update={"learned_validation": 4}) for name, report in teacher.data.items()}
    recipe = load_recipe(write_recipe(**{**SHORT, "tasks": TWO, "smaller": {"teacher": str(run), "layers": 1}}))
    assert recipe.smaller is not None
    write_smaller(tmp_path / "smaller", replace(teacher, data=data), recipe.smaller)
    changes = {"encoder": Encoder(source=str(tmp_path / "smaller")), "teachers": recipe.smaller.as_teachers()}
    begun = prepare(recipe.model_copy(update=changes), few, RunFolder(tmp_path / "run"))
    assert {name: report.learned_validation for name, report in begun.data.items()} == dict.fromkeys(TWO, 4)


def test_an_interrupted_one_goes_on_to_the_same_bytes(
    few: Path, model_folder: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    keys = {**SHORT, "tasks": {"intent": TWO["intent"]}, "save_minutes": 0}
    path = write_recipe(**keys, smaller={"teacher": str(model_folder), "layers": 1, "gold": [0, 1]})
    assert_resumed_equals_whole(path, few, tmp_path, step=3)


def test_a_decoder_goes_on_with_more_layers_than_the_encoder_has_left(
    tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    write_jsonl(tmp_path / "replies.jsonl", reply_rows(40, 0))
    write_jsonl(tmp_path / "train.jsonl", rows(30, 1))
    tasks = {"reply": {**TASK, "layers": 2}, "intent": {"train": "train.jsonl"}}
    keys = {**SHORT, "max_tokens": 32, "tasks": tasks, "budget": {"steps": 1, "evaluations": 1}}
    fit(write_recipe(**{**keys, "encoder": RECIPE["encoder"]}), tmp_path, tmp_path / "teacher", quiet=True)
    smaller = {"teacher": str(tmp_path / "teacher"), "layers": 1}
    path = write_recipe("smaller", **keys, smaller=smaller, method={"name": "lora", "rank": 2})
    assert check_data(load_recipe(path), tmp_path).problems == []
    run = prepare(start_smaller(load_recipe(path), tmp_path / "smaller"), tmp_path, RunFolder(tmp_path / "run"))
    begun, weights = checkpoint_weights(run.model, low_rank=True), open_trained(tmp_path / "teacher").weights
    own = [name for name in weights if name.startswith("heads.reply.layers.1.")]
    assert own
    assert all(np.array_equal(begun[name], weights[name]) for name in own)
    for name, left, message in (
        ("anew", {"answer": tasks["reply"], "intent": tasks["intent"]}, "a decoder of 2 layers cannot begin from an"),
        ("alone", {"reply": tasks["reply"]}, "smaller: every task writes replies, which have no teacher"),
    ):
        (problem,) = check_data(
            load_recipe(write_recipe(name, **{**keys, "tasks": left}, smaller=smaller)), tmp_path
        ).problems
        assert message in problem


def test_no_run_and_no_model_is_written_over_a_teacher(
    few: Path, run: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    teacher = shutil.copytree(run, tmp_path / "all" / "teacher")
    before = {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()}
    keys = {**SHORT, "tasks": {"intent": TWO["intent"]}}
    smaller = write_recipe("smaller", **keys, smaller={"teacher": str(teacher), "layers": 1})
    taught = write_recipe("taught", **keys, teachers={"intent": str(teacher)})
    for path in (smaller, taught):
        for folder in (teacher, teacher / "inner", teacher.parent):
            with pytest.raises(SetupError, match=r"overlaps the folder of a teacher, .*; give --run another one"):
                fit(path, few, folder, quiet=True)
            options = {"data": few, "run": tmp_path / "new", "quiet": True}
            with pytest.raises(SetupError, match=r"overlaps the folder of a teacher, .*; give --out another one"):
                train(path, out=folder, **options)
    with pytest.raises(SetupError, match="a model by `smaller` begins as layers that only its run folder has"):
        train(smaller, out=tmp_path / "model", delta=True, **options)
    with pytest.raises(SetupError, match=r"the run folder is .* or lies in it"):
        train(smaller, out=tmp_path / "model", **{**options, "run": tmp_path / "model" / "run"})
    assert not (tmp_path / "new").exists()
    assert before == {path: path.read_bytes() for path in teacher.rglob("*") if path.is_file()}


def test_a_model_folder_is_no_run_folder(model_folder: Path) -> None:
    assert [*RunFolder(model_folder).find_problems()] == [
        f"{model_folder}: not empty and not a run of ours; give --run another folder"
    ]


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
        ({"intermediate_size": 129}, {}, r"smaller\.intermediate_size: 129, but .* has 128; expected at most 128"),
        ({"intermediate_size": 0}, {}, r"smaller\.intermediate_size: "),
        ({}, {}, r"smaller: is as large as its teacher; give `layers` or `intermediate_size`"),
        ({"intermediate_size": 8, "keep": "ends"}, {}, r"smaller: `keep` says which layers stay"),
        ({"layers": 2, "keep": "ends"}, {}, r"smaller\.keep: has no effect: all 2 layers of .* stay"),
        (
            {"layers": 1, "temperature": 3},
            {"tasks": {"topics": RECIPE["tasks"]["topics"]}},
            r"smaller\.temperature: has no effect: all tasks with a teacher have several labels",
        ),
        ({"layers": 1, "gold": 1}, {}, r"smaller: .* nothing for the teacher to teach; lower `gold`, or leave"),
        ({"layers": 2}, {}, r"smaller: is as large as its teacher: .* has 2 layers of 128 neurons; give fewer"),
        ({"intermediate_size": 128}, {}, r"smaller: is as large as its teacher: .* has 2 layers of 128 neurons"),
        ({"layers": 2, "intermediate_size": 128}, {}, r"smaller: is as large as its teacher: .* has 2 layers of"),
        ({"layers": 1}, {"encoder": "somewhere"}, r"`encoder` stands beside `smaller`"),
        ({"layers": 1}, {"teachers": "somewhere"}, r"`teachers` stands beside `smaller`"),
        ({"layers": 1}, {"pooled": "distilled"}, r"pooled: distilled keeps vectors of the encoder before"),
        ({"layers": 1}, {"tasks": {"queue": TWO["intent"]}}, r"smaller: .* has no task queue; it has intent, topics"),
    ],
)
def test_what_cannot_become_smaller_is_refused_in_one_line_before_training(
    few: Path, run: Path, write_recipe: WriteRecipe, smaller: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    path = write_recipe(**{**SHORT, "tasks": TWO, "smaller": {"teacher": str(run), **smaller}, **changes})
    with pytest.raises(SetupError, match=message) as caught:
        refuse_first(path, few)
    assert "\n" not in str(caught.value)
