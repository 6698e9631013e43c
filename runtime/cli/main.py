"""The command `murmura`: our own commands, and the groups that other packages register by entry point.

Starts fast: a command imports what is heavy when it runs.
"""

import sys
from importlib.metadata import EntryPoint, version
from typing import Annotated, Any

import typer

from ..agent.discovery import find_commands, missing_extra
from ..errors import MurmuraError, SetupError
from . import asyncapi as cli_asyncapi
from . import config as cli_config
from . import deadletters as cli_deadletters
from . import doctor as cli_doctor
from . import models as cli_models
from . import publish as cli_publish
from . import replay as cli_replay
from . import serve as cli_serve
from . import tail as cli_tail
from . import topics as cli_topics

SETUP_EXIT_CODE = 2
_ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}

_INTRO = """Message-driven agents on Kafka, answered by one multitask model in dynamic batches.

See it work: [bold]murmura demo[/bold]. On your own Kafka: [bold]murmura topics --create[/bold], then
[bold]murmura serve --model FOLDER[/bold]. Something in the way? [bold]murmura doctor[/bold]
"""


def main() -> None:
    """Run the command line. What the user can put right is one line on stderr and exit code 2."""
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
        # Whoever read our output has enough. Python would complain once more when it closes stdout.
        sys.stderr.close()
        sys.exit(0)


def build() -> typer.Typer:
    """Put the commands together; those of an extra that is not installed are listed all the same."""
    app = typer.Typer(
        name="murmura",
        help=_INTRO,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for command in (
        cli_serve.serve,
        cli_publish.publish,
        cli_tail.tail,
        cli_replay.replay,
        cli_topics.topics,
        cli_doctor.doctor,
        cli_asyncapi.asyncapi,
    ):
        app.command()(command)
    app.add_typer(cli_models.models_app, name="models")
    app.add_typer(cli_deadletters.deadletters_app, name="deadletters")
    app.add_typer(cli_config.config_app, name="config")
    for point in find_commands():
        _add(app, point)
    return app


def _root(
    show_version: Annotated[bool, typer.Option("--version", is_eager=True, help="Say the version and end.")] = False,
) -> None:
    if show_version:
        typer.echo(f"murmura {version('murmura')}")
        raise typer.Exit


def _add(app: typer.Typer, point: EntryPoint) -> None:
    try:
        found: Any = point.load()
    except ModuleNotFoundError as error:
        advice = missing_extra(error) or f"{point.value} cannot be loaded: there is no module {error.name}"
        app.command(name=point.name, context_settings=_ANY_ARGUMENTS)(_stand_in(advice))
        return
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=point.name)
    else:
        app.command(name=point.name)(found)


def _stand_in(advice: str) -> Any:
    def unavailable(context: typer.Context) -> None:
        raise SetupError(advice)

    unavailable.__doc__ = advice.replace("[", r"\[")
    return unavailable


def _fail(message: str, code: int) -> None:
    print(f"murmura: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
