import shutil
from pathlib import Path

import pytest
from tiny_model import write_tiny_model
from typer.testing import CliRunner

from murmura.runtime.cli.models import models_app
from murmura.runtime.errors import ModelRefused, SetupError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", name="desk", version=3)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "models/tiny"))


def run(*arguments: object) -> str:
    result = CliRunner().invoke(models_app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.output


def test_list_names_each_folder_with_its_model(folder: Path) -> None:
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken/manifest.json").write_text("{")
    lines = dict(line.split("\t", 1) for line in run("list", folder.parent).splitlines())
    assert lines["tiny"].startswith("desk 3\tmodel\tintent, sentiment, topics, entities")
    assert "refused" in lines["broken"]


def test_list_of_a_directory_without_models_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="holds no model folder; `murmura train` makes one"):
        run("list", tmp_path)


def test_show_tells_tasks_labels_and_files(folder: Path) -> None:
    out = run("show", folder)
    assert "model\tdesk 3" in out
    assert "intent\tclassification\t4: card_lost, transfer, refund, other" in out
    assert "model.ragged.onnx\tgraph:ragged" in out


def test_verify_loads_the_model_and_reproduces_its_sample(folder: Path) -> None:
    out = run("verify", folder)
    assert "tokenizer.json\ttokenizer\tok" in out
    assert "reference sample: reproduced" in out
    assert out.endswith(f"{folder}: ok\n")


def test_verify_lists_what_is_wrong_and_fails(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    result = CliRunner().invoke(models_app, ["verify", str(folder)])
    assert "tokenizer.json\ttokenizer\thas 2 bytes, the manifest says" in result.output
    assert "model.ragged.onnx\tgraph:ragged\tok" in result.output
    assert isinstance(result.exception, ModelRefused)


def test_every_command_teaches_with_an_example() -> None:
    for command in ("list", "show", "verify", "assemble"):
        assert f"murmura models {command}" in run(command, "--help")
