import json
import platform
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_training import RECIPE

from murmura.runtime.errors import SetupError
from murmura.training.export import export as exporting
from murmura.training.export.export import export
from murmura.training.fit.loop import Progress, fit
from murmura.training.run_folders.run_folder import RunFolder

WriteRecipe = Callable[..., Path]
INTENT = {"train": "train.jsonl"}
SHORT = {"steps": 4, "evaluations": 2}


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


class Interrupted(Exception):
    pass


def interrupt_after_scoring(progress: Progress) -> None:
    if progress.metrics:
        raise Interrupted


def interrupt_at_once(progress: Progress) -> None:
    raise Interrupted


def assert_refused_in_one_line(run: Path, out: Path, match: str) -> None:
    with pytest.raises(SetupError, match=match) as refusal:
        export(run, out)
    assert "\n" not in str(refusal.value)
    assert not out.exists()


@pytest.mark.parametrize("interrupt", [interrupt_after_scoring, interrupt_at_once])
def test_a_second_run_that_is_interrupted_leaves_nothing_to_export(
    interrupt: Callable[[Progress], None],
    data: Path,
    tmp_path: Path,
    write_recipe: WriteRecipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit(write_recipe("a", budget=SHORT, tasks={"intent": INTENT}), data, tmp_path / "run", quiet=True)
    other = {**INTENT, "labels": ["transfer", "other", "lost"]}
    recipe = write_recipe("b", budget=SHORT, tasks={"intent": other})
    monkeypatch.setattr("murmura.training.fit.loop.PROGRESS_S", 0.0)
    with pytest.raises(Interrupted):
        fit(recipe, data, tmp_path / "run", quiet=True, on_progress=interrupt)
    assert_refused_in_one_line(tmp_path / "run", tmp_path / "out", r"no run\.json")


def test_a_run_begins_without_the_checkpoint_and_the_curves_of_the_run_before(own_run: Path) -> None:
    tokenizer = RunFolder(own_run).tokenizer()
    recipe = own_run.parent / "again.yaml"
    recipe.write_text("tasks: {}\n")
    (own_run / "mine.txt").write_text("notes")
    RunFolder(own_run).begin(recipe, tokenizer)
    assert {path.name for path in own_run.iterdir()} == {"mine.txt", "recipe.yaml", "tokenizer.json"}


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "tokenizer.json", "recipe.yaml"])
def test_a_file_of_another_run_is_not_exported(own_run: Path, tmp_path: Path, name: str) -> None:
    if name.endswith(".safetensors"):
        weights = load_file(own_run / name)
        save_file({key: array * 2 for key, array in weights.items()}, own_run / name)
    else:
        (own_run / name).write_text((own_run / name).read_text() + " ")
    assert_refused_in_one_line(own_run, tmp_path / "out", rf"{name}: not the file that run\.json belongs to")
    (own_run / name).unlink()
    assert_refused_in_one_line(own_run, tmp_path / "out", f"{name}: is missing")


def test_a_record_of_an_earlier_version_is_held_against_its_recipe(own_run: Path, tmp_path: Path) -> None:
    fields = json.loads((own_run / "run.json").read_text())
    del fields["files"], fields["planned_steps"]
    (own_run / "run.json").write_text(json.dumps(fields))
    export(own_run, tmp_path / "fine")
    (own_run / "recipe.yaml").write_text("tasks: {}\n")
    assert_refused_in_one_line(own_run, tmp_path / "out", r"recipe\.yaml: not the file")


def test_a_damaged_record_is_refused_in_one_line(own_run: Path, tmp_path: Path) -> None:
    (own_run / "run.json").write_text('{"name": "x"')
    assert_refused_in_one_line(own_run, tmp_path / "out", r"run\.json: not the record of a run")


def test_the_record_names_the_recipe_that_the_run_began_with(
    data: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    recipe = write_recipe(budget=SHORT, tasks={"intent": RECIPE["tasks"]["intent"]})

    def edit(progress: Progress) -> None:
        recipe.write_text("tasks: {}\n")

    fit(recipe, data, tmp_path / "run", quiet=True, on_progress=edit)
    assert export(tmp_path / "run", tmp_path / "out").tasks[0].labels == ["lost", "other", "transfer"]


def test_a_failed_replacement_leaves_the_exported_folder_as_it_was(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(run, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    rename = Path.rename

    def fail_for_drafts(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError("no space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_drafts)
    with pytest.raises(OSError, match="no space"):
        export(run, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_a_killed_export_had_moved_aside_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".out.replaced").mkdir()
    (tmp_path / ".out.replaced" / "manifest.json").write_text("{}")
    exporting.begin(tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out.part"}


def test_the_record_names_what_the_run_depends_on(data: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(budget=SHORT, tasks={"intent": RECIPE["tasks"]["intent"]}, precision="fp32", threads=1)
    record = fit(recipe, data, tmp_path / "run", seed=7, quiet=True)
    assert record == RunFolder(tmp_path / "run").record()
    found = record.environment
    assert found is not None
    assert (record.seed, found.threads, found.precision, found.python) == (7, 1, "fp32", platform.python_version())
    assert found.libraries["torch"] == torch.__version__.split("+")[0] or found.libraries["torch"] == torch.__version__
    expected = {name: sha256((data / name).read_bytes()).hexdigest() for name in ("train.jsonl", "test.jsonl")}
    assert record.data_files == expected
