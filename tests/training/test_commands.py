import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from murmura.runtime.errors import SetupError
from murmura.runtime.model.folders.folder import check_folder
from murmura.training.cli import train as commands
from murmura.training.run_folders.run_folder import RunFolder


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


@pytest.mark.usefixtures("drawings")
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
    assert "intent: rows: train 72, validation 8, test 80; 2 labels: card 36, money 36; " in said
    assert "of test 72 also in train (72 exactly), 8 also in validation (8 exactly)" in said
    assert "intent: temperature " in said
    assert "(chosen on 8 rows, few: drawn towards 1)." in said
    assert f"serve it: murmura serve --model {out}" in said
    manifest = check_folder(out)
    assert manifest.metrics["intent"]["rows"] == 80
    assert manifest.data["intent"]["parts"]["train"]["labels"] == {"card": 36, "money": 36}
    assert RunFolder(out.with_name("mine.run")).record().data["intent"].overlap["test"]["train"].exact == 72
    report = (out / "report.md").read_text()
    assert "| train | 72 | 0 | 0 | 0 | 0 | 0.00% |" in report
    assert "- of test 72 also in train (72 exactly)" in report
    pages = [(folder / "report.html").read_text() for folder in (out, out.with_name("mine.run"))]
    assert all("curve-loss" in page for page in pages)
    assert ["shows texts of rows" in page for page in pages] == [False, True]


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
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'murmura\[training,cpu\]'"):
        commands.evaluate(tmp_path)


def test_a_check_names_every_mistake_on_stderr_trains_nothing_and_exits_with_2(tmp_path: Path) -> None:
    rows = "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(20))
    (tmp_path / "fine.csv").write_text(f"text,label\n{rows}")
    (tmp_path / "lone.csv").write_text("text,label\none,a\ntwo,a\n")
    recipe = tmp_path / "r.yaml"
    head = (
        "encoder: {source: scratch, hidden_size: 16, layers: 1, vocab_size: 200}\ntasks:\n  fine: {train: fine.csv}\n"
    )
    app = typer.Typer()
    app.command()(commands.train)
    asked = [str(recipe), "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--check"]
    recipe.write_text(head)
    checked = CliRunner().invoke(app, asked)
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert checked.stdout.splitlines() == [
        "fine: rows: train 18, validation 2; 2 labels: a 9, b 9",
        "checked: it can be trained",
    ]
    recipe.write_text(head + "  lone: {train: lone.csv}\n  gone: {train: gone.csv}\n")
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 2
    assert refused.stdout.splitlines() == checked.stdout.splitlines()[:1]
    lone, gone = refused.stderr.splitlines()
    assert "r.yaml:4: tasks.lone.train: the training rows know one label only ('a')" in lone
    assert "gone.csv: no such file" in gone
    assert not (tmp_path / "out.run").exists()


def test_a_check_looks_at_everything_that_can_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "fine.csv").write_text("text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(20)))
    (tmp_path / "bad.csv").write_text("text,label\n,a\n")
    (tmp_path / "r.yaml").write_text(
        "encoder: {source: scratch, hidden_size: 15, heads: 3, layers: 1, vocab_size: 200}\ntasks:\n"
        "  fine: {train: fine.csv}\n  other: {train: gone.csv, test: bad.csv, reports: {mine: bad.csv, more: fine.csv}}\n"
    )
    (tmp_path / "out.run").write_text("")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("")
    app = typer.Typer()
    app.command()(commands.train)
    asked = [str(tmp_path / "r.yaml"), "--data", str(tmp_path), "--out", str(taken), "--delta", "--check"]
    found = CliRunner().invoke(app, [*asked, "--run", str(tmp_path / "out.run")])
    assert found.exit_code == 2
    assert found.stdout.splitlines() == ["fine: rows: train 18, validation 2; 2 labels: a 9, b 9"]
    expected = (
        "is not a model folder; choose another --out",
        "an encoder from scratch has no base to differ from",
        "out.run: a file, expected a folder",
        "gone.csv: no such file",
        "bad.csv:2: the text is empty",
    )
    lines = found.stderr.splitlines()
    assert len(lines) == len(expected)
    assert all(text in line for text, line in zip(expected, lines, strict=True))
