"""Commands that write a folder over one that they read, or that holds something else: refused before anything is trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny_study import SHORT, tune
from tiny_training import RECIPE, rows, write_jsonl
from typer.testing import CliRunner

from murmura.runtime.errors import SetupError
from murmura.runtime.model.folders.folder import check_folder
from murmura.training.cli import pretrain, train
from murmura.training.export.export import export
from murmura.training.few_shot.make import make_model
from murmura.training.few_shot.recipe import Wanted
from murmura.training.fit.loop import fit
from murmura.training.ingest.folder import new_folder
from murmura.training.recipe.job import read_job
from murmura.training.retrain.work_folder import refuse_overlaps

WriteRecipe = Callable[..., Path]
INTENT: dict[str, Any] = {"intent": RECIPE["tasks"]["intent"]}
STEP = {"budget": {"steps": 2, "evaluations": 1}, "precision": "fp32"}


@pytest.fixture
def begun(model_folder: Path, tmp_path: Path) -> Path:
    """A model that others start from, named by a relative path through a link."""
    (tmp_path / "models").symlink_to(tmp_path)
    return Path(shutil.copytree(model_folder, tmp_path / "begun"))


def invoke(command: Callable[..., None], *words: object) -> str:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(each) for each in words], catch_exceptions=False).output


@pytest.mark.parametrize("added", [False, True])
def test_a_delta_does_not_replace_its_base(
    begun: Path, few: Path, tmp_path: Path, write_recipe: WriteRecipe, added: bool
) -> None:
    new = {"mood": RECIPE["tasks"]["intent"]}
    recipe = write_recipe(encoder=str(begun), tasks=INTENT, lora=True, **STEP)
    asked = [recipe, "--data", few, "--out", tmp_path / "models" / "begun", "--delta"]
    if added:
        recipe = write_recipe(tasks=new, **STEP)
        asked += ["--add-to", begun]
    for check in (True, False):
        if check:
            said = invoke(train.train, *asked, "--check")
            assert "checked" not in said
            assert "overlaps the folder of the base of the delta" in said
        else:
            with pytest.raises(SetupError, match=r"overlaps the folder of the base .*; give --out another one"):
                invoke(train.train, *asked)
    assert not (tmp_path / "begun.run").exists()
    fit(recipe, few, tmp_path / "run", quiet=True, add_to=begun if added else None)
    with pytest.raises(SetupError, match="overlaps the folder of the base of the delta"):
        export(tmp_path / "run", begun, delta=True)
    check_folder(begun)
    export(tmp_path / "run", tmp_path / "delta", delta=True)


def test_a_model_may_take_the_place_of_the_one_that_it_began_from_and_what_is_lost_is_said(
    begun: Path, few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    recipe = write_recipe(encoder=str(begun), tasks=INTENT, lora=True, **STEP)
    fit(recipe, few, tmp_path / "run", quiet=True)
    assert "cannot be exported again" not in invoke(train.export, tmp_path / "run", "--out", tmp_path / "other")
    said = invoke(train.export, tmp_path / "run", "--out", tmp_path / "models" / "begun")
    assert "was the encoder that the run changes, and is replaced: the run cannot be exported again" in said
    assert [spec.name for spec in check_folder(begun).tasks] == ["intent"]
    with pytest.raises(SetupError, match="SHA-256"):
        export(tmp_path / "run", tmp_path / "third")


def test_a_few_examples_put_a_task_beside_those_of_the_model_in_its_place(begun: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "mood.jsonl", rows(12, 1))
    said: list[str] = []
    make_model(Wanted(tmp_path / "mood.jsonl", task="mood", encoder=str(begun)), begun, said.append)
    assert [spec.name for spec in check_folder(begun).tasks] == [*RECIPE["tasks"], "mood"]
    assert any("the run cannot be exported again" in line for line in said)


@pytest.mark.parametrize("name", ["rows.csv", "encoder/config.json", "README.md", ".git/HEAD"])
def test_a_model_folder_with_a_file_of_somebody_else_is_not_replaced(
    begun: Path, run: Path, name: str, write_recipe: WriteRecipe, few: Path
) -> None:
    other = begun / name
    other.parent.mkdir(exist_ok=True)
    other.write_text("mine")
    with pytest.raises(SetupError, match=rf"begun: holds {name}, which would be removed .*; move it, or choose"):
        export(run, begun)
    assert f"holds {name}" in invoke(train.train, write_recipe(), "--data", few, "--out", begun, "--check")
    assert other.read_text() == "mine"


def test_reports_and_cards_go_with_the_model_that_they_are_of(begun: Path, run: Path, data: Path) -> None:
    from murmura.runtime.cli.models import card

    invoke(train.evaluate, begun, "--data", data)
    invoke(card, begun)
    assert {"report.html", "report.md", "report.json", "README.md"} <= {path.name for path in begun.iterdir()}
    for name in (".DS_Store", "Thumbs.db", ".nfs0001", ".gitattributes", ".cache/huggingface/a", ".manifest.json.17"):
        (begun / name).parent.mkdir(parents=True, exist_ok=True)
        (begun / name).write_text("text")
    export(run, begun)
    assert not (begun / "README.md").exists()


def test_a_run_in_the_model_folder_that_it_is_exported_to_is_not_removed(run: Path, begun: Path) -> None:
    own = shutil.copytree(run, begun / "run")
    with pytest.raises(SetupError, match=r"begun: holds run/"):
        export(Path(own), begun)
    assert (begun / "run" / "run.json").is_file()


def test_a_pretraining_keeps_its_encoder_and_its_run(base: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    (tmp_path / "texts.txt").write_text("one text\n\nanother\n")
    run = tmp_path / "begin.run"
    shutil.copytree(base, run / "pretrained")
    (run / "recipe.yaml").write_text("a run")
    stage = {"texts": "texts.txt", "objectives": "masked_words", "steps": 1}
    recipe = write_recipe(encoder=str(run / "pretrained"), tasks=None, pretrain=stage)
    with pytest.raises(SetupError, match=r"overlaps the folder of the encoder, .*; give --run another one"):
        invoke(pretrain.pretrain, recipe, "--data", tmp_path, "--out", tmp_path / "enc", "--run", run)
    assert (run / "pretrained" / "model.safetensors").is_file()
    out = tmp_path / "enc"
    with pytest.raises(SetupError, match=r"the run folder is .*enc or lies in it, which --out replaces"):
        invoke(pretrain.pretrain, recipe, "--data", tmp_path, "--out", out, "--run", out / "run")
    invoke(pretrain.pretrain, recipe, "--data", tmp_path, "--out", out, "--quiet")
    (out / "texts.txt").write_text("mine")
    with pytest.raises(SetupError, match=r"enc: holds texts\.txt, which would be removed"):
        invoke(pretrain.pretrain, recipe, "--data", tmp_path, "--out", out, "--run", tmp_path / "again.run")


@pytest.mark.parametrize("work", ["begun/job.run", "begun", "."])
def test_a_retraining_does_not_copy_a_model_into_itself(begun: Path, tmp_path: Path, work: str) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("model: {folder: begun}\nfeedback: {data: feedback}\n")
    (tmp_path / "feedback").mkdir()
    with pytest.raises(SetupError, match=r"overlaps the folder of the model, .*; give --work another one"):
        refuse_overlaps(read_job(job).value, tmp_path / work)
    refuse_overlaps(read_job(job).value, tmp_path / "job.run")


def test_a_study_does_not_write_over_its_own_recipe(few: Path, tmp_path: Path, write_recipe: WriteRecipe) -> None:
    space = {"space": {"optimiser.head_lr": [1e-2, 2e-2]}}
    recipe = write_recipe("best", **{**SHORT, "tune": space})
    before = recipe.read_text()
    with pytest.raises(SetupError, match=r"best\.yaml: a study in .* writes the recipes of its best trials there"):
        tune(recipe, few, tmp_path)
    assert recipe.read_text() == before


@pytest.mark.parametrize("out", [".", "../begun"])
def test_the_folder_that_a_command_runs_in_is_not_replaced(
    begun: Path, run: Path, few: Path, monkeypatch: pytest.MonkeyPatch, write_recipe: WriteRecipe, out: str
) -> None:
    recipe = write_recipe(tasks=INTENT, **STEP)
    monkeypatch.chdir(begun)
    with pytest.raises(SetupError, match=r"the folder that the command runs in, .*; call it from another one"):
        invoke(train.export, run, "--out", out)
    assert "the folder that the command runs in" in invoke(train.train, recipe, "--data", few, "--out", out, "--check")
    with pytest.raises(SetupError, match=r"the folder that the command runs in, .*; call it from another one"):
        make_model(Wanted(few / "train.jsonl", encoder=str(begun)), Path(out), print)
    check_folder(begun)


def test_a_data_set_is_not_made_in_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SetupError, match=r"is there already; a data set is never changed"), new_folder(Path()):
        pass
