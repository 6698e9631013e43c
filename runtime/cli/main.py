"""The command `murmura`: the built-in commands, and those that packages register by entry point.

Starts fast: a command imports heavy modules when it runs.
"""

import inspect
import sys
from importlib.metadata import EntryPoint, version
from typing import Annotated, Any

import typer

from ..agent.discovery import find_commands, missing_extra
from ..errors import NO_ROOM, MurmuraError, SetupError, describe_no_room
from .asyncapi import asyncapi
from .config import config_app
from .doctor import doctor
from .experiments.show import experiment_app
from .models import models_app
from .predict import predict
from .records.deadletters import deadletters_app
from .records.publish import publish
from .records.replay import replay
from .records.tail import tail
from .records.topics import topics
from .serve import serve

SETUP_EXIT_CODE = 2
_ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}

_INTRO = """Message-driven agents on Kafka, answered by one multitask model in dynamic batches.

Demo: [bold]murmura demo[/bold]. On your own Kafka: [bold]murmura topics --create[/bold], then
[bold]murmura serve --model FOLDER[/bold]. Diagnose problems: [bold]murmura doctor[/bold]
"""


def main() -> None:
    """Run the command line. A setup error, or a full disk, is one line on stderr and exit code 2."""
    try:
        build()()
    except MurmuraError as error:
        _fail(str(error), SETUP_EXIT_CODE if isinstance(error, SetupError) else 1)
    except ModuleNotFoundError as error:
        advice = missing_extra(error)
        if advice is None:
            raise
        _fail(advice, SETUP_EXIT_CODE)
    except BrokenPipeError:
        # The reader of our output has closed it. Python would report that again when it closes stdout.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _fail(describe_no_room(error), SETUP_EXIT_CODE)


def build() -> typer.Typer:
    """Assemble the commands. Commands of an extra that is not installed are listed too."""
    app = typer.Typer(
        name="murmura",
        help=_INTRO,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for command in (
        serve,
        predict,
        publish,
        tail,
        replay,
        topics,
        doctor,
        asyncapi,
    ):
        app.command()(command)
    app.add_typer(models_app, name="models")
    app.add_typer(experiment_app, name="experiment")
    app.add_typer(deadletters_app, name="deadletters")
    app.add_typer(config_app, name="config")
    for point in find_commands():
        _add(app, point)
    _join_help_lines(app)
    return app


def _join_help_lines(app: typer.Typer) -> None:
    """Make one line of each paragraph of the help, so that the terminal's width alone decides where lines end."""
    for command in app.registered_commands:
        paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _join_help_lines(group.typer_instance)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"murmura {version('murmura')}")
        raise typer.Exit


def _root(
    show_version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None: ...


def _add(app: typer.Typer, point: EntryPoint) -> None:
    try:
        found: Any = point.load()
    except ModuleNotFoundError as error:
        advice = missing_extra(error) or f"{point.value} cannot be loaded: there is no module {error.name}"
        app.command(name=point.name, context_settings=_ANY_ARGUMENTS)(_make_unavailable(advice))
        return
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=point.name)
    else:
        app.command(name=point.name)(found)


def _make_unavailable(advice: str) -> Any:
    def unavailable(context: typer.Context) -> None:
        raise SetupError(advice)

    unavailable.__doc__ = advice.replace("[", r"\[")
    return unavailable


def _fail(message: str, code: int) -> None:
    print(f"murmura: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
