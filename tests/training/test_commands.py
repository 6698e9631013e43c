from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from murmura.runtime.errors import SetupError
from murmura.runtime.model.folder import check_folder
from murmura.training import commands


@pytest.fixture
def invoke() -> Callable[..., str]:
    app = typer.Typer()
    for command in (commands.train, commands.export, commands.evaluate):
        app.command()(command)

    def call(*words: str) -> str:
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return call


def test_a_csv_and_a_short_recipe_become_a_model_that_can_be_served(tmp_path: Path, invoke: Callable[..., str]) -> None:
    texts = [
        ("where is my card", "card"),
        ("send some money", "money"),
        ("my card is gone", "card"),
        ("move cash", "money"),
    ]
    content = "text,label\n" + "".join(f"{text} {n},{label}\n" for n in range(20) for text, label in texts)
    (tmp_path / "mine.csv").write_text(content)
    (tmp_path / "mine.yaml").write_text(
        "encoder: {source: scratch, hidden_size: 16, layers: 1, vocab_size: 200}\n"
        "tasks:\n  intent:\n    train: mine.csv\n    test: mine.csv\n"
    )
    out = tmp_path / "models" / "mine"
    said = invoke("train", str(tmp_path / "mine.yaml"), "--data", str(tmp_path), "--out", str(out), "--quiet")
    assert "note: 72 test texts of task intent also occur in its training rows" in said
    assert f"serve it: murmura serve --model {out}" in said
    assert check_folder(out).metrics["intent"]["rows"] == 80


def test_a_run_is_exported_and_evaluated_by_hand(
    run: Path, data: Path, tmp_path: Path, invoke: Callable[..., str]
) -> None:
    assert "equal to torch" in invoke("export", str(run), "--out", str(tmp_path / "m"), "--graphs", "padded")
    assert [f.role for f in check_folder(tmp_path / "m").files if f.role.startswith("graph")] == ["graph:padded"]
    invoke("export", str(run), "--out", str(tmp_path / "m"))
    assert "intent (test): rows 40" in invoke("evaluate", str(tmp_path / "m"), "--data", str(data))


def test_what_cannot_be_exported_is_said_before_training(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("encoder: scratch\ntasks: {a: {train: not-read-yet.csv}}\n")
    with pytest.raises(SetupError, match="from scratch has no base to differ from"):
        commands.train(recipe, tmp_path, tmp_path / "out", delta=True)
    with pytest.raises(SetupError, match="is not a model folder"):
        commands.train(recipe, tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["train", "export", "evaluate"])
def test_help_teaches_with_an_example(name: str, invoke: Callable[..., str]) -> None:
    assert f"Example: [bold]murmura {name} " in (getattr(commands, name).__doc__ or "")
    assert "--" in invoke(name, "--help")


@pytest.mark.parametrize("command", [commands.train, commands.evaluate])
def test_help_shows_no_path_of_ours(command: Callable[..., None]) -> None:
    assert "--data data" in (command.__doc__ or "")


def test_without_the_extra_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'murmura\[training,cpu\]'"):
        commands.evaluate(tmp_path)
