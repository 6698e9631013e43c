"""Pushing, releasing and going back, as typed on the command line: a folder store, and both brokers."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_model import TASKS, write_tiny_model
from typer.testing import CliRunner

from murmura.runtime.cli.main import build
from murmura.runtime.errors import ModelRefused, SetupError
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.release.store import ModelStore

Run = Callable[..., str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", TASKS[:1], name="desk")


@pytest.fixture
def store(tmp_path: Path, made: Path) -> Path:
    """A store with desk 1, 2 and 3."""
    for _ in range(3):
        ModelStore(tmp_path / "store").push(made)
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("MURMURA_")]:
        monkeypatch.delenv(name)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(build(), ["models", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def broker(unique, monkeypatch) -> Iterator[str]:
    prefix = unique("p")
    monkeypatch.setenv("MURMURA_PREFIX", prefix)
    with EmbeddedBroker({f"{prefix}.models": 1}) as embedded:
        yield embedded.bootstrap


def refusal(*arguments: object) -> str:
    with pytest.raises(SetupError) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_push_numbers_a_model_and_says_how_to_release_it(made, tmp_path):
    result = CliRunner().invoke(build(), ["models", "push", str(made), "--store", str(tmp_path / "store")])
    assert result.stdout == f"desk 1\t{ModelStore(tmp_path / 'store').digest('desk', 1)}\n"
    assert "`murmura models release desk 1 --why TEXT`" in result.stderr


def test_the_store_may_stand_in_the_settings(made, store, tmp_path):
    config = tmp_path / "murmura.yaml"
    config.write_text(f"model: {{store: {store}, name: desk}}\n")
    assert run("push", made, "--config", config).startswith("desk 4\t")
    assert run("list", "--config", config).count("desk\t") == 4
    assert "--store URL" in refusal("push", made)


def test_the_store_of_each_of_several_models_stands_in_the_settings(made, store, tmp_path, broker):
    config = tmp_path / "murmura.yaml"
    config.write_text(f"models: {{spam: {{folder: {made}}}, desk: {{store: {store}}}}}\n")
    at = ("--config", config, "--bootstrap", broker)
    assert run("push", made, "--config", config).startswith("desk 4\t")
    assert run("list", "--config", config).count("desk\t") == 4
    for version in (1, 3):
        assert f"desk {version} is current" in run("release", "desk", version, *at)
    assert "set models.spam.store" in refusal("release", "spam", 1, *at)
    with (store / "desk/1/manifest.json").open("a") as file:
        file.write(" ")
    assert "is not what was released as it" in refusal("rollback", "desk", *at)


def test_a_folder_that_is_not_sound_is_not_pushed(made, store, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "bad"))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelRefused, match="the manifest says"):
        run("push", folder, "--store", store)


def test_list_shows_what_is_in_a_store_and_what_is_wrong_with_it(store):
    (store / "desk/2/manifest.json").write_text("{}")
    lines = [line.split("\t") for line in run("list", "--store", store).splitlines()]
    assert [line[:3] for line in lines] == [["desk", "1", "model"], ["desk", "2", "refused"], ["desk", "3", "model"]]
    assert lines[0][3] == "intent"
    assert lines[0][5] == ModelStore(store).digest("desk", 1)
    shutil.rmtree(store / "desk")
    assert "holds no version; `murmura models push FOLDER` adds one" in refusal("list", "--store", store)


def test_show_reads_a_version_of_a_store_the_newest_unless_one_is_named(store):
    assert "model\tdesk 2" in run("show", "desk/2", "--store", store)
    assert "model\tdesk 3" in run("show", "desk", "--store", store)
    assert "expected NAME/VERSION such as desk/3" in refusal("show", "desk/two", "--store", store)
    assert "has no version of shop; it has desk" in refusal("show", "shop", "--store", store)
    assert "has no version 9 of desk: it has 1, 2, 3" in refusal("show", "desk/9", "--store", store)


def go_there_and_back(store: Path, *at: object) -> None:
    assert run("release", "desk", 1, "--store", store, *at) == "desk 1 is current (generation 1)\n"
    said = run("release", "desk", 3, "--why", "knows more", "--by", "ann", "--store", store, *at)
    assert said == "desk 3 is current (generation 2, before: 1)\n"
    assert run("release", "desk", 3, "--why", "once more", "--store", store, *at) == "desk 3 is current already\n"
    assert run("rollback", "desk", "--by", "bo", *at) == "desk 1 is current (generation 3, before: 3)\n"
    lines = [line.split("\t") for line in run("history", "desk", *at).splitlines()]
    assert [line[:2] for line in lines] == [["1", "1"], ["2", "3"], ["3", "1 (back to generation 1)"]]
    assert lines[1][3:] == ["ann", "knows more"]
    assert [line.split("\t")[:3] for line in run("history", *at).splitlines()] == [
        ["desk", "3", "1 (back to generation 1)"]
    ]
    assert "desk has no version before 1" in refusal("rollback", "desk", *at)


def test_release_and_rollback_are_kept_in_the_history(store, broker):
    go_there_and_back(store, "--bootstrap", broker)


@pytest.mark.kafka
def test_release_and_rollback_on_a_real_kafka(store, kafka, unique, monkeypatch):
    monkeypatch.setenv("MURMURA_PREFIX", unique("p"))
    assert CliRunner().invoke(build(), ["topics", "--create", "--bootstrap", kafka]).exit_code == 0
    go_there_and_back(store, "--bootstrap", kafka)


def test_only_what_is_in_the_store_can_be_released(store, broker):
    at = ("--bootstrap", broker)
    assert "has no version 7 of desk: it has 1, 2, 3" in refusal(
        "release", "desk", 7, "--why", "x", "--store", store, *at
    )
    (store / "desk/2/manifest.json").write_text("{}")
    assert "is not a manifest" in refusal("release", "desk", 2, "--why", "x", "--store", store, *at)
    assert "nothing has been released yet" in refusal("history", *at)


def test_no_way_back_to_a_version_that_has_been_exchanged(store, broker):
    at = ("--store", store, "--bootstrap", broker)
    run("release", "desk", 1, "--why", "x", *at)
    run("release", "desk", 2, "--why", "x", *at)
    with (store / "desk/1/manifest.json").open("a") as file:
        file.write(" ")
    assert "is not what was released as it" in refusal("rollback", "desk", *at)


def test_a_model_without_releases_is_one_line(store, broker):
    at = ("--bootstrap", broker)
    assert "shop has no release to go back from" in refusal("rollback", "shop", *at)
    run("release", "desk", 1, "--why", "x", "--store", store, *at)
    assert "shop has no release in" in refusal("history", "shop", *at)
    assert "why: String should have at most 1000" in refusal(
        "release", "desk", 2, "--why", "x" * 2000, "--store", store, *at
    )


def test_a_current_version_is_released_once_more_when_that_is_asked_for(store, broker):
    at = ("--store", store, "--bootstrap", broker)
    run("release", "desk", 1, *at)
    run("release", "desk", 2, *at)
    assert run("release", "desk", 2, *at) == "desk 2 is current already\n"
    assert run("release", "desk", 2, "--again", *at) == "desk 2 is current (generation 3, before: 2)\n"
    assert run("rollback", "desk", *at) == "desk 1 is current (generation 4, before: 2)\n"


@pytest.mark.parametrize("command", ["push", "release", "rollback", "history", "list", "show"])
def test_every_command_teaches_with_an_example(command):
    assert f"murmura models {command}" in run(command, "--help")
