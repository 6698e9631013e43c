"""Two model folders are compared on the same rows, and a loss ends the command with 1."""

import json
import shutil
import sys

import pytest
import yaml
from tiny_loop import damaged, mix_of, write_corrections, write_job

from murmura.runtime.cli import main as cli
from murmura.runtime.errors import SetupError
from murmura.runtime.model.model import Model
from murmura.training.evaluate.evaluate import evaluate
from murmura.training.gate.compare_folders import compare_folders
from murmura.training.gate.held_out import HeldOutSet
from murmura.training.gate.judged_versions import Judged, sketch_rows, write_versions
from murmura.training.mix.write import write_mix
from murmura.training.prepare.reading import read_part
from murmura.training.recipe.recipe import load_recipe
from murmura.training.retrain.preview import preview


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `murmura compare ...`; returns exit code and standard output."""

    def main(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["murmura", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().out

    return main


def test_a_model_beside_itself_has_lost_nothing(desk_base, run):
    code, out = run(desk_base / "desk", desk_base / "desk", "--data", desk_base)
    assert code == 0
    assert out.startswith(f"# {desk_base}/desk against {desk_base}/desk\n")
    for task in ("intent", "topics", "places"):
        assert f"| {task} | test | 90 in 85 | 0 | " in out  # five rows have the text of another
    assert "| held |" in out
    assert "worse |" not in out


@pytest.mark.parametrize(("old_judged", "new_judged", "shown"), [(0, 0, 1), (3, 0, 4), (3, 4, 4), (0, 2, 2)])
def test_the_report_says_how_many_versions_a_set_has_judged(desk_base, tmp_path, run, old_judged, new_judged, shown):
    recipe = load_recipe(desk_base / "base.yaml")
    intent = recipe.tasks["intent"]
    held = HeldOutSet("intent", "test", read_part(intent.test, intent, desk_base, seed=recipe.data_seed))
    for name, versions in (("old", old_judged), ("new", new_judged)):
        shutil.copytree(desk_base / "desk", tmp_path / name)
        if versions:
            judged = Judged(sketch=sketch_rows(held), versions=versions)
            write_versions(tmp_path / name, {("intent", "test"): judged})
    _, out = run(tmp_path / "old", tmp_path / "new", "--data", desk_base)
    cells = {line.split(" | ")[0]: line.split(" | ")[-2] for line in out.splitlines() if line.endswith("| held |")}
    assert cells == {"| intent": str(shown), "| topics": "1", "| places": "1"}


def test_a_damaged_model_is_worse_in_the_task_that_is_damaged_alone(desk_base, tmp_path, run):
    damaged(desk_base, tmp_path, "places")
    code, out = run(desk_base / "desk", tmp_path / "model", "--data", desk_base)
    assert code == 1
    assert [line.split(" | ")[0] for line in out.splitlines() if line.endswith("worse |")] == ["| places"]


def test_the_recipe_names_the_rows_and_tasks_without_any_are_noted(desk_base, tmp_path):
    recipe = yaml.safe_load((desk_base / "base.yaml").read_text())
    for task in ("topics", "places"):
        recipe["tasks"][task].pop("test")
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(recipe))
    desk = desk_base / "desk"
    result = compare_folders(desk, desk, desk_base, recipe=path)
    assert {each.task for each in result.comparisons} == {"intent"}
    assert result.notes == tuple(f"{task} is not compared: no held-out rows for both" for task in ("places", "topics"))
    recipe["tasks"]["intent"].pop("test")
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(SetupError, match=r"other\.yaml: no task of both models names `test` or `reports`; .* --recipe"):
        compare_folders(desk, desk, desk_base, recipe=path)


def test_tasks_of_one_name_and_two_kinds_are_refused(desk_base, tmp_path):
    shutil.copytree(desk_base / "desk", tmp_path / "new")
    manifest = json.loads((tmp_path / "new" / "manifest.json").read_text())
    next(task for task in manifest["tasks"] if task["name"] == "topics")["kind"] = "classification"
    (tmp_path / "new" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SetupError, match=r"task topics: .* has it as multi_label, .* as classification"):
        compare_folders(desk_base / "desk", tmp_path / "new", desk_base)


def test_keys_without_effect_in_the_recipe_of_a_model_folder_are_notes(desk_base, tmp_path, run):
    """Nobody can mend the recipe of a released folder."""
    desk = shutil.copytree(desk_base / "desk", tmp_path / "desk")
    recipe = yaml.safe_load((desk / "recipe.yaml").read_text())
    recipe["tasks"]["places"]["thresholds"] = {"accept": 0.5}
    (desk / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    note = "tasks.places: a task of kind tagging does not use `thresholds.accept`"
    code, out = run(desk, desk_base / "desk", "--data", desk_base)
    assert code == 0
    assert note in out
    lines = []
    assert evaluate(desk, desk_base, print_line=lines.append)
    assert [note in line for line in lines] == [True]
    write_corrections(tmp_path / "corrections")
    job = write_job(tmp_path, desk_base, old={"recipe": str(desk / "recipe.yaml"), "data": str(desk_base)})
    assert [line.startswith("note: ") for line in preview(job) if note in line] == [True]
    mix = mix_of(job, Model.load(desk_base / "desk"))
    (tmp_path / "mix").mkdir()
    write_mix(mix, desk_base / "desk", tmp_path / "mix")
    assert load_recipe(tmp_path / "mix" / "recipe.yaml").tasks["places"].thresholds.accept is None
    with pytest.raises(SetupError, match="does not use `thresholds"):
        load_recipe(desk / "recipe.yaml")
