"""`murmura console`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..runtime.cli import options
from ..runtime.errors import SetupError

if TYPE_CHECKING:
    import asyncio

    from ..runtime.settings.settings import Settings
    from .assembly import Console

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def console(
    agents: Annotated[
        list[str] | None,
        typer.Argument(metavar="AGENT", help="MODULE:ATTRIBUTE of your own agents, in addition to the installed ones."),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="HOST:PORT", help="Address. Default: 127.0.0.1:9480; port 0: a free one."),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nobody may write, whatever their role.")] = False,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FOLDER", help="Model whose labels reviews may be answered with.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Review the rows of a CSV or JSON lines file, without Kafka."),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="NAME", help="With --file: the task to label.")] = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
    log_level: options.LogLevel = None,
) -> None:
    """Show dead letters, agents and reviews in the browser, until Ctrl-C.

    Reads topics without a group and keeps no database. What people decide is written as records. Others than the user
    of this machine come through a proxy that names them: docs/console.md.

    With --file it shows the texts of a file that have no label, and writes the labels into it.

    Example: [bold]murmura console --bootstrap localhost:9092 --model models/desk[/bold]

    Example: [bold]murmura console --file rows.csv --model models/desk[/bold]
    """
    from ..runtime.observe import logs
    from ..runtime.settings.sources import load

    settings = load(
        config,
        {
            "kafka": {"bootstrap_servers": bootstrap},
            "log": {"level": log_level},
            "model": {"folder": model},
            "console": {"http": http, "read_only": True if read_only else None},
        },
    )
    address = settings.console.http_address
    if address[0] not in LOOPBACK and not settings.console.trusted_proxies:
        raise SetupError(
            f"console.http {settings.console.http} can be reached by others, and nobody says who they are: "
            "set console.trusted_proxies, or use 127.0.0.1"
        )
    logs.configure(settings.log.level, settings.log.format)
    _run(settings, agents or [], file, task)


def _run(settings: "Settings", own: list[str], file: Path | None, task: str | None) -> None:
    from ..runtime.cli.until_signalled import run_until_stopped
    from ..runtime.observe import logs
    from .assembly import assemble
    from .server import serve

    log = logs.get_logger(__name__)
    shown = {"bootstrap": settings.kafka.bootstrap_servers, "read_only": settings.console.read_only}

    async def main(stop: "asyncio.Event") -> None:
        made = assemble(settings, own) if file is None else await _assemble_file(settings, file, task)
        ready = lambda url: log.info("console", url=url, **shown)  # noqa: E731
        await serve(made, settings.console.http_address, stop=stop, ready=ready)

    run_until_stopped(main)


async def _assemble_file(settings: "Settings", file: Path, task: str | None) -> "Console":
    from .file_assembly import assemble_file  # loads the model

    return assemble_file(settings, file, task)
