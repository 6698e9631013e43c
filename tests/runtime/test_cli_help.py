"""What `--help` and shell completion show of every command."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from murmura.runtime.cli import main as cli


def commands(command: click.Command, name: str = "murmura") -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for inner_name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {inner_name}")


COMMANDS = dict(commands(typer.main.get_command(cli.build())))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "murmura"])
def test_help_says_something_and_leaves_it_to_the_terminal_where_lines_end(name):
    paragraphs = (COMMANDS[name].help or "").split("\n\n")
    assert paragraphs[0].endswith((".", "?"))
    assert [paragraph for paragraph in paragraphs if "\n" in paragraph] == []


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("murmura dead", "deadletters"), ("murmura deadletters ", "redrive"), ("murmura serve --mo", "--model")],
)
def test_a_shell_completes_commands_and_options(typed, offered):
    environment = os.environ | {
        "_MURMURA_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - (not typed.endswith(" "))),
    }
    murmura = Path(sys.executable).with_name("murmura")
    done = subprocess.run([murmura], env=environment, capture_output=True, text=True)
    assert offered in done.stdout.split()
