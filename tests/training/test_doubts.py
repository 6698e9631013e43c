"""Which examples a run asks people about."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_training import rows, write_jsonl

from murmura.runtime.model.model import Model
from murmura.schemas.review import Review
from murmura.training.data.near_texts import near_form, near_id
from murmura.training.gate.held_out import HeldOutSet
from murmura.training.mix.corrections import Corrections, read_corrections
from murmura.training.prepare.reading import read_part
from murmura.training.recipe.keys.reading import Source
from murmura.training.recipe.keys.tasks import Task
from murmura.training.retrain.doubts import MOST, find_doubts
from murmura.training.run_folders.label_errors import LabelError, LabelErrors


@pytest.fixture(scope="module")
def model(desk_base: Path) -> Model:
    return Model.load(desk_base / "desk")


def held(folder: Path, lines: list[dict]) -> HeldOutSet:
    write_jsonl(folder / "own.jsonl", lines)
    task = Task(train=[Source(path="own.jsonl")])
    return HeldOutSet("intent", "own", read_part(task.train, task, folder, seed=0), "other")


def wrong(count: int) -> list[dict]:
    turned = {"lost": "transfer", "transfer": "lost"}
    return [{"text": r["text"], "label": turned[r["label"]]} for r in rows(count, 7) if r["label"] in turned]


def asked(
    model: Model, sets: list[HeldOutSet], folder: Path, corrections: Mapping[str, Corrections] = {}
) -> list[Review]:
    """The reviews of a run that replays nothing."""
    return find_doubts(model, sets, corrections, current=model, replayed={}, roots=[folder])


def test_a_sure_error_names_its_file_and_line_and_what_was_given(model: Model, tmp_path: Path):
    right = [{"text": row["text"], "label": row["label"]} for row in rows(30, 7)]
    (review,) = asked(model, [held(tmp_path, [*right, wrong(1)[0]])], tmp_path)
    assert (review.why, review.example.file, review.example.line) == ("error", "own.jsonl", 31)
    assert (review.given, review.predicted) == ("transfer", "lost")
    assert review.score >= 0.9
    assert review.key == "own.jsonl:31"


def test_a_doubted_label_of_feedback_names_its_prediction(model: Model, tmp_path: Path):
    lines = [{**row, "prediction_id": f"{n:032x}"} for n, row in enumerate(wrong(9))]
    write_jsonl(tmp_path / "intent.train.jsonl", lines)
    found = asked(model, [], tmp_path, read_corrections(tmp_path, model.manifest, 1))
    assert {review.why for review in found} == {"label_error"}
    assert {review.prediction_id for review in found} <= {line["prediction_id"] for line in lines}
    assert all(review.example is None for review in found)


def test_people_are_asked_about_so_many_and_no_more(model: Model, tmp_path: Path):
    lines = [{"text": f"{row['text']} {n}", "label": row["label"]} for n, row in enumerate(wrong(300))]
    found = asked(model, [held(tmp_path, lines)], tmp_path)
    assert len(found) == MOST


def test_files_of_one_name_in_two_folders_are_two(model: Model, tmp_path: Path):
    sets = []
    for name, lines in (("x", wrong(9)[:3]), ("y", wrong(18)[3:6])):
        (tmp_path / name).mkdir()
        sets.append(replace(held(tmp_path / name, lines), name=name))
    found = asked(model, sets, tmp_path)
    assert sorted(review.key for review in found) == [f"{n}/own.jsonl:{line}" for n in "xy" for line in (1, 2, 3)]


def test_a_row_of_two_sets_is_asked_about_once_and_takes_nobody_s_place(model: Model, tmp_path: Path):
    lines = [{"text": f"{row['text']} {n}", "label": row["label"]} for n, row in enumerate(wrong(300))]
    every = held(tmp_path, lines)
    found = asked(model, [every, replace(every, name="new labels")], tmp_path)
    assert len({review.key for review in found}) == len(found) == MOST


def test_an_old_row_is_doubted_when_both_versions_contradict_its_label(model: Model, tmp_path: Path):
    old = held(tmp_path, [*wrong(3)[:2], {"text": "send money to rome", "label": "transfer"}]).examples
    found = find_doubts(model, [], {}, current=model, replayed={"intent": [*old, *old]}, roots=[tmp_path])
    assert sorted((each.why.value, each.key) for each in found) == [
        ("label_error", "own.jsonl:1"),
        ("label_error", "own.jsonl:2"),
    ]


def test_what_only_the_current_version_said_is_no_error(model: Model, tmp_path: Path):
    assert asked(model, [replace(held(tmp_path, wrong(9)), agreement=True)], tmp_path) == []


def test_a_label_of_feedback_that_a_cross_validated_regression_contradicts_strongly_is_suspected(
    model: Model, tmp_path: Path
) -> None:
    right = [row for row in rows(9, 7) if row["label"] == "lost"]
    lines = [{"text": r["text"], "label": "lost", "prediction_id": f"{n:032x}"} for n, r in enumerate(right)]
    write_jsonl(tmp_path / "intent.train.jsonl", lines)
    corrections = read_corrections(tmp_path, model.manifest, 1)
    ids = [near_id(near_form(text)).hex() for text in (lines[0]["text"], lines[1]["text"], "of no feedback")]
    found = LabelError(place="x:1", id=ids[0], given="lost", answered="transfer", score=0.05, answered_score=0.7)
    unsure = found.model_copy(update={"id": ids[1], "answered_score": 0.4})
    another = found.model_copy(update={"id": ids[2]})
    errors = {"intent": LabelErrors(rows=9, found=3, errors=[found, unsure, another])}
    reviews = find_doubts(model, [], corrections, current=model, replayed={}, roots=[tmp_path], label_errors=errors)
    (review,) = [each for each in reviews if each.predicted == "transfer" and each.given == "lost"]
    assert (review.why, review.prediction_id, review.score) == ("label_error", lines[0]["prediction_id"], 0.7)
