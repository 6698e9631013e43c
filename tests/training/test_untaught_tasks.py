"""A task that no phase teaches keeps what it begins from: an untrained head is refused, a teacher has nothing to teach there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stopped_training import assert_resumed_equals_whole
from tiny_replies import TASK as REPLY
from tiny_replies import reply_rows
from tiny_training import RECIPE, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.training.fit.check_data import check_data
from murmura.training.fit.loop import fit
from murmura.training.recipe.recipe import load_recipe
from murmura.training.run_folders.curves import read_curves
from murmura.training.run_folders.run_folder import RunFolder
from murmura.training.transfer.plan import refuse_recipe

WriteRecipe = Callable[..., Path]
TASKS = RECIPE["tasks"]
TWO = {name: TASKS[name] for name in ("intent", "places")}
SHORT = {"tasks": TWO, "trackers": [], "probe": False, "few_rows": 0, "budget": {"evaluations": 1}}
ONE = [{"name": "one", "tasks": ["intent"], "steps": 2}]
IN_TURN = [{"name": name, "tasks": [name], "steps": 4, "held_rows": 0} for name in TWO]
"""The second phase alone teaches `places`."""


def refusal_of(recipe: Path, data: Path, run: Path) -> str:
    """Return what the training is refused with, which the check says, too."""
    with pytest.raises(SetupError, match=r"tiny\.yaml:\d+: ") as caught:
        fit(recipe, data, run, quiet=True)
    said = str(caught.value)
    assert said in check_data(load_recipe(recipe), data).problems
    assert "\n" not in said
    assert not run.exists()
    return said


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        ({}, "places"),
        ({"tasks": {name: TASKS[name] for name in ("topics", "places")}, "phases": [{**ONE[0], "tasks": ["places"]}]}, "topics"),
        ({"tasks": {**TWO, "reply": REPLY}, "phases": [{"name": "two", "tasks": [*TWO], "held_rows": 0}]}, "reply"),
        ({"phases": [{**ONE[0], "tasks": ["places"]}], "self_training": {"texts": "train.jsonl"}}, "intent"),
    ],
    ids=["tagging", "several labels", "replies", "self-training alone"],
)  # fmt: skip
def test_a_head_that_nothing_teaches_is_refused_in_one_line(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, changes: dict[str, Any], task: str
) -> None:
    write_jsonl(few / "replies.jsonl", reply_rows(30, 0))
    keys = {**SHORT, "max_tokens": 32, "phases": ONE, **changes}
    said = refusal_of(write_recipe(**keys), few, tmp_path / "run")
    assert f": tasks.{task}: no phase teaches it, and its head would stay untrained; name it in a phase" in said


def test_a_head_that_goes_on_or_begins_from_regression_needs_no_phase(
    few: Path, base: Path, model_folder: Path, write_recipe: WriteRecipe
) -> None:
    begins = {"probe": True, "few_rows": 20, "phases": [{**ONE[0], "tasks": ["places"]}]}
    for keys in ({"encoder": str(model_folder), "phases": ONE}, {"encoder": str(base), **begins}):
        assert check_data(load_recipe(write_recipe(**{**SHORT, **keys})), few).problems == []


def test_a_head_that_goes_on_with_a_label_that_nothing_teaches_is_refused(
    few: Path, model_folder: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    made = [json.loads(line) for line in (few / "train.jsonl").read_text().splitlines()]
    for row in made[::2]:
        row["spans"][0]["label"] = "town"
    write_jsonl(few / "train.jsonl", made)
    said = refusal_of(write_recipe(**{**SHORT, "encoder": str(model_folder), "phases": ONE}), few, tmp_path / "run")
    assert "tasks.places: no phase teaches it, and its new labels B-town, I-town would stay untrained" in said


def test_a_comparison_of_tasks_wants_each_of_them_taught(write_recipe: WriteRecipe, model_folder: Path) -> None:
    recipe = load_recipe(write_recipe(**{**SHORT, "encoder": str(model_folder), "phases": ONE}))
    with pytest.raises(
        SetupError, match=r"tiny\.yaml:\d+: tasks\.places: no phase teaches it, so that there is nothing"
    ):
        refuse_recipe(recipe, [0])


def shares_of(run: Path) -> list[tuple[float | None, float | None]]:
    return [
        (entry.get("teachers/intent"), entry.get("teachers/places"))
        for entry in read_curves(run)
        if "loss/intent" in entry
    ]


@pytest.mark.parametrize(("teacher", "taught"), [("places", ["places"]), (None, ["intent", "places"])])
def test_labels_take_over_in_the_first_phase_that_teaches_the_task(
    few: Path, run: Path, model_folder: Path, tmp_path: Path, write_recipe: WriteRecipe, teacher: str | None, taught: list[str],
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("murmura.training.fit.progress.training_log.EVERY", 1)
    monkeypatch.setattr("murmura.training.fit.loop.EVERY", 1)
    keys: dict[str, Any] = {**SHORT, "encoder": str(model_folder), "save_minutes": 0}
    phases = [*IN_TURN, {"name": "both", "steps": 2}]
    path = write_recipe(**keys, phases=phases, teachers=str(run) if teacher is None else {teacher: str(run)})
    runs = assert_resumed_equals_whole(path, few, tmp_path, step=6)
    rising = [1 / 3, 2 / 3, 1, 1]
    intent = [*rising, *([None] * 4), 1, 1] if teacher is None else [None] * 10
    shown = shares_of(runs.whole_folder)
    assert [one for one, _ in shown] == pytest.approx(intent, abs=1e-5)
    assert [other for _, other in shown] == pytest.approx([*([None] * 4), *rising, 1, 1], abs=1e-5)
    assert sorted(runs.whole.teachers) == taught
    fit(write_recipe("alone", **keys, phases=phases), few, tmp_path / "alone", quiet=True)
    alone, whole = (RunFolder(folder).weights() for folder in (tmp_path / "alone", runs.whole_folder))
    assert any((alone[name] != whole[name]).any() for name in whole if name.startswith("heads.places"))


def test_a_teacher_of_a_task_that_no_phase_teaches_is_refused_or_not_asked(
    few: Path, run: Path, model_folder: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    keys = {**SHORT, "encoder": str(model_folder), "phases": ONE}
    said = refusal_of(write_recipe(**keys, teachers={"places": str(run)}), few, tmp_path / "run")
    assert ": teachers: no phase teaches places, so that its teacher has no effect; leave it out" in said
    record = fit(write_recipe(**keys, teachers=str(run)), few, tmp_path / "run", quiet=True)
    assert [*record.teachers] == ["intent"]
    assert {path.stem for path in (tmp_path / "run" / "teachers").iterdir()} == {"intent"}


def test_who_chooses_the_checkpoint_is_said_of_the_tasks_that_a_phase_teaches(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {**TWO, "intent": {**TWO["intent"], "validation": "test.jsonl"}}
    phases = [{"name": "both", "steps": 1}, {"name": "places", "tasks": ["places"], "steps": 1, "held_rows": 0}]
    fit(write_recipe(**{**SHORT, "tasks": tasks}, phases=phases), few, tmp_path / "run")
    shown = capsys.readouterr()
    both, places = (shown.out + shown.err).split("phase places: ")
    assert "tasks with fewer than 50 validation rows do not choose the checkpoint: places (3)" in both
    assert "checkpoint: places" not in places
