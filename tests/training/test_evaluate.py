import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_training import RECIPE, rows, write_jsonl

from murmura.runtime.errors import SetupError
from murmura.runtime.model.folders.folder import check_folder
from murmura.schemas.manifest import Calibration, TaskSpec, ThresholdRows, Thresholds
from murmura.training.evaluate.evaluate import evaluate
from murmura.training.export.export import export
from murmura.training.fit.loop import fit
from murmura.training.report.decisions import describe_decisions


@pytest.fixture
def model(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def test_figures_stand_in_report_and_manifest_and_the_folder_stays_sound(model: Path, data: Path) -> None:
    evaluate(model, data)
    manifest = check_folder(model)
    assert manifest.metrics["intent"]["accuracy"] > 0.9
    assert manifest.metrics["topics"]["micro_f1"] > 0.9
    assert manifest.metrics["places"]["f1_exact"] > 0.9
    assert manifest.metrics["intent"]["out_of_scope_rows"] == 20
    assert json.loads((model / "report.json").read_text())["intent"]["test"]["rows"] == 40
    report = (model / "report.md").read_text()
    assert "## places (tagging" in report
    assert "At a glance" in (model / "report.html").read_text()
    assert "report.html" not in {entry.path for entry in manifest.files}  # so it is never pushed
    low, high = manifest.metrics["intent"]["intervals"]["accuracy"]
    assert low < manifest.metrics["intent"]["accuracy"] <= high
    assert "precision" in report


def test_evaluating_twice_changes_nothing(model: Path, data: Path) -> None:
    evaluate(model, data)
    before = (model / "manifest.json").read_bytes()
    evaluate(model, data)
    assert (model / "manifest.json").read_bytes() == before


def test_further_sets_are_reported_beside_the_test_part(
    model: Path, data: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    write_jsonl(tmp_path / "own.jsonl", rows(9, 8))
    intent = {**RECIPE["tasks"]["intent"], "reports": {"own messages": "./own.jsonl"}}
    scores = evaluate(model, data, recipe=write_recipe(tasks={"intent": intent}))
    assert set(scores["intent"]) == {"test", "own messages"}
    assert check_folder(model).metrics["intent"]["reports"]["own messages"]["rows"] == 6


def test_a_label_that_the_model_does_not_have_is_named(
    model: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"text": "hi", "label": "greeting"}])
    recipe = write_recipe(tasks={"intent": {"train": "x.jsonl", "test": "x.jsonl"}})
    with pytest.raises(SetupError, match=r"x\.jsonl:1: label 'greeting' is not among those of the model's task intent"):
        evaluate(model, tmp_path, recipe=recipe)


def test_without_a_test_part_there_is_nothing_to_score(
    model: Path, data: Path, write_recipe: Callable[..., Path]
) -> None:
    with pytest.raises(SetupError, match="no task names `test` or `reports`"):
        evaluate(model, data, recipe=write_recipe(tasks={"intent": {"train": "train.jsonl"}}))


def test_a_delta_is_scored_as_it_will_be_assembled(
    data: Path, base: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    recipe = write_recipe(encoder=str(base), lora={"rank": 4}, budget={"steps": 20, "evaluations": 1})
    fit(recipe, data, tmp_path / "run", quiet=True)
    export(tmp_path / "run", tmp_path / "delta", delta=True)
    evaluate(tmp_path / "delta", data, base=base)
    manifest = check_folder(tmp_path / "delta")
    assert manifest.is_delta
    assert set(manifest.metrics) == set(RECIPE["tasks"])


@pytest.mark.parametrize(
    ("rows", "chosen_on", "expected"),
    [
        (
            6,
            ThresholdRows(genuine=6, others=2),
            "temperature 0.9 (chosen on 6 rows, few: drawn towards 1); "
            "withheld below 0.999986 (chosen on 6 rows in scope and 2 out of scope, few).",
        ),
        (
            300,
            ThresholdRows(genuine=300, others=49),
            "temperature 0.9 (chosen on 300 rows); "
            "withheld below 0.999986 (chosen on 300 rows in scope and 49 out of scope, few).",
        ),
        (
            300,
            ThresholdRows(genuine=300, others=50),
            "temperature 0.9 (chosen on 300 rows); "
            "withheld below 0.999986 (chosen on 300 rows in scope and 50 out of scope).",
        ),
        (None, None, "temperature 0.9; withheld below 0.999986."),
    ],
)
def test_the_report_tells_a_temperature_and_a_threshold_of_few_rows(
    rows: int | None, chosen_on: ThresholdRows | None, expected: str
) -> None:
    spec = TaskSpec(
        name="t",
        kind="classification",
        labels=["a", "b"],
        thresholds=Thresholds(accept=0.999986),
        calibration=Calibration(temperature=0.9),
        calibration_rows=rows,
        threshold_rows=chosen_on,
    )
    assert describe_decisions(spec) == expected


def test_a_set_without_spans_gives_a_report(
    model: Path, data: Path, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    write_jsonl(tmp_path / "talk.jsonl", [{"text": "tell me a joke", "spans": []}] * 3)
    places = {**RECIPE["tasks"]["places"], "test": "./talk.jsonl"}
    evaluate(model, data, recipe=write_recipe(tasks={"places": places}))
    metrics = check_folder(model).metrics["places"]
    assert metrics["f1"] is None
    assert metrics["false_spans_per_100_texts"] >= 0
    assert json.loads((model / "report.json").read_text())["places"]["test"]["f1"] is None
    assert "| f1 | none | F1 of whole spans" in (model / "report.md").read_text()


def test_the_report_explains_its_figures_and_begins_with_what_a_receiver_gets(model: Path, data: Path) -> None:
    evaluate(model, data)
    lines = (model / "report.md").read_text().splitlines()
    first = lines[lines.index("### intent: test") + 5]
    assert first.startswith("| served | ")
    assert first.endswith("as a receiver gets it |")
