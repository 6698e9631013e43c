"""Teachers: what a model of one task answers is learned beside the labels, less and less."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import no_room
from safetensors.numpy import load_file, save_file
from stopped_training import assert_resumed_equals_whole
from tiny_training import RECIPE, rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.fit.check_data import check_data
from murmura.training.fit.loop import fit
from murmura.training.fit.setup import learn_from_teachers
from murmura.training.fit.steps.gradient import measure_losses
from murmura.training.fit.teachers import answers
from murmura.training.recipe.keys.teachers import Teachers
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]
TASKS = RECIPE["tasks"]
SHORT = {"trackers": [], "probe": False, "few_rows": 0, "budget": {"steps": 4, "evaluations": 1}}


def train(recipe: Path, data: Path, run: Path, **keys: Any) -> bytes:
    fit(recipe, data, run, quiet=True, **keys)
    return (run / "checkpoint.safetensors").read_bytes()


def refuse_first(recipe: Path, data: Path) -> None:
    for problem in check_data(load_recipe(recipe), data).problems:
        raise SetupError(problem)


def test_labels_take_over_from_the_teacher_linearly_in_the_first_phase_of_a_task() -> None:
    teachers = Teachers(models="m")
    assert [teachers.gold_at(0, step, 5) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert teachers.gold_at(1, 0, 5) == 1
    assert [teachers.gold_at(0, step, 2) for step in range(3)] == [0, 1, 1]
    assert [teachers.gold_at(0, step, 1) for step in range(2)] == [0, 1], "else it would teach nothing"
    assert [Teachers(models="m", gold=0.5).gold_at(0, step, 3) for step in range(3)] == [0.5] * 3


@pytest.fixture
def encoder_of_run(base: Path, run: Path, tmp_path: Path) -> Path:
    """The encoder of the teacher without its heads, with its tokenizer."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    arrays = load_file(run / "checkpoint.safetensors")
    kept = {f"bert.{name}": array for name, array in arrays.items() if not name.startswith("heads.")}
    save_file(kept, folder / "model.safetensors")
    shutil.copyfile(run / "tokenizer.json", folder / "tokenizer.json")
    words = len(arrays["embeddings.word_embeddings.weight"])
    config = json.loads((base / "config.json").read_text()) | {"vocab_size": words}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_without_labels_a_student_of_any_kind_learns_its_teacher_whatever_the_labels_say(
    encoder_of_run: Path, run: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    right = rows(90, 1)
    wrong = [
        row | {name: other[name] for name in ("label", "topics")}
        for row, other in zip(right, right[1:] + right[:1], strict=True)
    ]
    for row in wrong:
        row["spans"] = [{"start": 0, "end": len(row["text"].split()[0]), "label": "place"}]
    write_jsonl(tmp_path / "held.jsonl", rows(60, 2))
    tasks = {
        name: {**{key: value for key, value in task.items() if key != "test"}, "validation": "held.jsonl"}
        for name, task in TASKS.items()
    }
    keys = {**SHORT, "encoder": str(encoder_of_run), "tasks": tasks, "budget": {"epochs": 4, "evaluations": 1}}
    path = write_recipe(teachers={"models": str(run), "gold": 0}, **keys)
    runs = []
    for name, said in (("right", right), ("wrong", wrong)):
        write_jsonl(tmp_path / "train.jsonl", said)
        runs.append(train(path, tmp_path, tmp_path / name))
    assert runs[0] == runs[1]
    record = RunFolder(tmp_path / "wrong").record()
    assert {name: record.teachers[name].folder for name in TASKS} == dict.fromkeys(TASKS, str(run))
    assert min(scores["main"] for scores in record.validation.values()) > 0.9, record.validation


def test_a_narrower_student_of_another_vocabulary_learns_its_teacher_though_every_label_is_wrong(
    run: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    other = {"lost": "transfer", "transfer": "other", "other": "lost"}
    write_jsonl(tmp_path / "train.jsonl", [row | {"label": other[row["label"]]} for row in rows(240, 1)])
    write_jsonl(tmp_path / "held.jsonl", rows(60, 2))
    task = {"out_of_scope": "other", "train": "train.jsonl", "validation": "held.jsonl"}
    encoder = {**RECIPE["encoder"], "hidden_size": 16, "layers": 1, "vocab_size": 200}
    keys = {**SHORT, "encoder": encoder, "tasks": {"intent": task}, "budget": {"epochs": 12, "evaluations": 1}}
    record = fit(write_recipe(teachers={"models": str(run), "gold": 0}, **keys), tmp_path, tmp_path / "run", quiet=True)
    assert record.validation["intent"]["main"] > 0.9, record.validation
    assert RunFolder(tmp_path / "run").weights()["heads.intent.weight"].shape == (3, 16)


def test_a_student_of_labels_alone_is_that_without_a_teacher_to_the_byte(
    few: Path, run: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {**SHORT, "tasks": {"intent": TASKS["intent"]}, "optimiser": {"warmup": 0}}
    alone = train(write_recipe("alone", **keys), few, tmp_path / "alone")
    monkeypatch.setattr(Teachers, "gold_at", lambda *_: 1.0)
    assert train(write_recipe("taught", teachers=str(run), **keys), few, tmp_path / "taught") == alone


def test_an_interrupted_run_goes_on_at_the_same_share_with_the_same_answers(
    few: Path, run: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    compute = answers._compute

    def count(*given: Any) -> Any:
        computed.append("again")
        return compute(*given)

    monkeypatch.setattr(answers, "_compute", count)
    tasks = {name: TASKS[name] for name in ("intent", "places")}
    path = write_recipe(teachers={"intent": str(run)}, save_minutes=0, **SHORT, tasks=tasks)
    assert_resumed_equals_whole(path, few, tmp_path, step=3, meanwhile=lambda run: computed.clear())
    shares = [json.loads(line).get("teachers/intent") for line in (tmp_path / "whole" / "curves.jsonl").open()]
    assert shares[0] == 1
    assert not computed


def test_answers_that_were_damaged_are_computed_again(
    few: Path, run: Path, tmp_path: Path, open_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "CHUNK", 7)
    opened = open_run(few, few_rows=0, tasks={"intent": TASKS["intent"]}, teachers=str(run))
    learn_from_teachers(opened)
    first = [opened.train[0].taught[row].logits for row in range(len(opened.train[0].ids))]
    file = tmp_path / "run" / "teachers" / "intent.npy"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b"\0")
    learn_from_teachers(opened)
    assert file.read_bytes() == good
    assert np.array_equal(first, [opened.train[0].taught[row].logits for row in range(len(first))])


def test_answers_take_their_room_as_they_are_written_and_on_a_full_disk_their_file_is_named(
    few: Path, run: Path, tmp_path: Path, open_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_run(few, few_rows=0, tasks={"intent": TASKS["intent"]}, teachers=str(run))
    with no_room(100), pytest.raises(OSError, match=r"/teachers/intent\.part'"):
        learn_from_teachers(opened)
    compute, sizes = answers._compute, []

    def watch(*given: Any) -> Any:
        for logits in compute(*given):
            sizes.append((tmp_path / "run" / "teachers" / "intent.part").stat().st_size)
            yield logits

    monkeypatch.setattr(answers, "_compute", watch)
    learn_from_teachers(opened)
    rows = len(opened.train[0].ids)
    assert sizes[0] < 12 * rows, (
        "the file has its whole size before there is room for it: mapped, it would end the process"
    )
    assert np.load(tmp_path / "run" / "teachers" / "intent.npy").shape == (rows, 3)


def test_a_head_with_a_teacher_does_not_begin_from_regression(
    few: Path, run: Path, open_run: Callable[..., Any]
) -> None:
    keys = {"tasks": {"intent": TASKS["intent"]}, "few_rows": 20}
    assert open_run(few, **keys).few == {"intent"}
    assert not open_run(few, teachers={"intent": str(run)}, **keys).few


def test_where_out_of_scope_goes_by_distance_a_teacher_teaches_the_other_labels(
    few: Path, run: Path, open_run: Callable[..., Any]
) -> None:
    by_distance = {**TASKS["intent"], "out_of_scope": {"label": "other", "by": "distance"}}
    keys = {"few_rows": 0, "teachers": {"models": str(run), "gold": 0}}
    losses = []
    for task in (by_distance, {**TASKS["intent"], "out_of_scope": None}):
        opened = open_run(few, tasks={"intent": task}, **keys)
        learn_from_teachers(opened)
        opened.model.eval()
        losses.append(measure_losses(opened, [(0, [*range(len(opened.train[0].ids))])])[0])
    assert 0 < losses[0] < 3 * losses[1], losses


def test_labels_in_another_order_are_found_by_their_names(few: Path, run: Path, open_run: Callable[..., Any]) -> None:
    other = {**TASKS["intent"], "labels": ["transfer", "other", "lost"]}
    logits = []
    for task in (TASKS["intent"], other):
        opened = open_run(few, few_rows=0, tasks={"intent": task}, teachers={"intent": str(run)})
        learn_from_teachers(opened)
        logits.append(opened.train[0].taught[0].logits)
    assert logits[0][[2, 1, 0]].tolist() == logits[1].tolist()


@pytest.mark.parametrize(
    ("teachers", "tasks", "message"),
    [
        ({"colour": "RUN"}, {}, r"teachers: no task colour; expected some of intent"),
        ("nowhere", {}, r"teachers: nowhere: no model and no finished run; expected a folder with"),
        ({"queue": "RUN"}, {"queue": TASKS["intent"]}, r"teachers: .* has no task queue; it has intent, topics, places"),
        ("RUN", {"intent": {**TASKS["topics"]}}, r"teachers: intent of .* is of kind classification, here it is of kind multi_label"),
        ("RUN", {"intent": {**TASKS["intent"], "labels": ["lost", "other", "transfer", "loan"]}}, r"teachers: intent of .* lacks the label 'loan'; expected the same 4 labels"),
        ("RUN", {"places": TASKS["places"]}, r"teachers: places answers each token, and .* has another tokenizer"),
        ({"models": "RUN", "gold": 1}, {}, r"teachers: `gold: 1` leaves nothing"),
        ({"models": "RUN", "gold": [0, 2]}, {}, r"teachers\.gold"),
        ({"models": "RUN", "temperature": 2}, {"topics": TASKS["topics"]}, r"teachers\.temperature: has no effect: all tasks with a teacher have several"),
        ("RUN", {"intent": {**TASKS["intent"], "train": {"path": "train.jsonl", "soft": "all"}}}, r"teachers: intent has rows marked `soft`"),
    ],
)  # fmt: skip
def test_a_teacher_that_cannot_teach_is_refused_in_one_line_before_training(
    few: Path, run: Path, write_recipe: WriteRecipe, teachers: Any, tasks: dict[str, Any], message: str
) -> None:
    teachers = json.loads(json.dumps(teachers).replace("RUN", str(run)))
    path = write_recipe(**SHORT, tasks=tasks or {"intent": TASKS["intent"]}, teachers=teachers)
    with pytest.raises(SetupError, match=message) as caught:
        refuse_first(path, few)
    assert "\n" not in str(caught.value)


def test_a_temperature_may_be_meant_for_a_task_that_is_left_out(
    few: Path, run: Path, write_recipe: WriteRecipe
) -> None:
    tasks = {"topics": TASKS["topics"], "intent": {**TASKS["intent"], "skip": True}}
    path = write_recipe(**SHORT, tasks=tasks, teachers={"models": str(run), "temperature": 2})
    assert check_data(load_recipe(path), few).problems == []
