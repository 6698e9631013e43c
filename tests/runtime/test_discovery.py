"""Agents and commands that others bring."""

import pytest
import typer
from typer.testing import CliRunner

from murmura.runtime.agent import discovery
from murmura.runtime.agent.discovery import find_agents, find_misspelling, missing_extra
from murmura.runtime.cli import main as cli
from murmura.runtime.errors import SetupError


def test_without_names_the_agents_that_packages_serve_by_default_are_found():
    assert {agent.name for agent in find_agents()} == {"classification", "analysis"}


def test_another_prefix_moves_the_topics_of_installed_agents():
    (agent,) = find_agents(["classification"], prefix="desk")
    assert (agent.topics, agent.output) == (("desk.classification.requests",), "desk.classification.results")


def test_a_missing_module_names_its_extra():
    assert missing_extra(ModuleNotFoundError(name="torch.nn")) == (
        "this needs torch, which is not installed: pip install 'murmura[training]'"
    )
    assert missing_extra(ModuleNotFoundError(name="shop")) is None


class Broken:
    name, value = "train", "murmura.training.cli.train:train"

    def load(self):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


def test_a_command_whose_extra_is_missing_is_listed_and_says_which(monkeypatch):
    monkeypatch.setattr(cli, "find_commands", lambda: [Broken()])
    app = cli.build()
    assert "train" in CliRunner().invoke(app, ["--help"]).output
    called = CliRunner().invoke(app, ["train", "recipe.yaml", "--data", "x"])
    assert str(called.exception) == "this needs torch, which is not installed: pip install 'murmura[training]'"


def test_a_group_of_commands_may_be_registered_too(monkeypatch):
    group = typer.Typer()
    group.command("one")(lambda: typer.echo("done"))
    group.command("two")(lambda: None)

    class Group:
        name, value = "shop", "shop:app"

        def load(self):
            return group

    monkeypatch.setattr(cli, "find_commands", lambda: [Group()])
    assert CliRunner().invoke(cli.build(), ["shop", "one"]).output == "done\n"
    assert discovery.find_commands()


def test_a_handler_that_does_not_say_what_comes_of_a_record_is_refused_at_start(tmp_path, monkeypatch):
    (tmp_path / "half_done.py").write_text(
        "from murmura.runtime.agent import Handler\n\n\nclass Mine(Handler):\n    name, topics = 'mine', ('in',)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SetupError, match=r"agent half_done:Mine: Mine has no `handle`"):
        find_agents(["half_done:Mine"])


def test_a_name_that_is_like_an_installed_agents_is_doubted_and_another_processes_is_not():
    assert find_misspelling("clasification") == (
        "--agent: no agent called clasification is installed here; did you mean classification?"
    )
    assert [find_misspelling(name) for name in ("classification", "billing_router", "-")] == [None] * 3
