"""`murmura console`."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..runtime.cli import options
from ..runtime.errors import SetupError

if TYPE_CHECKING:
    import asyncio

    from ..runtime.settings.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def console(
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="HOST:PORT", help="Address. Default: 127.0.0.1:9480; port 0: a free one."),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nobody may write, whatever their role.")] = False,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
    log_level: options.LogLevel = None,
) -> None:
    """Show dead letters, agents and reviews in the browser, until Ctrl-C.

    Reads topics without a group and keeps no database. What people decide is written as records. Others than the user
    of this machine come through a proxy that names them: docs/console.md.

    Example: [bold]murmura console --bootstrap localhost:9092[/bold]
    """
    from ..runtime.observe import logs
    from ..runtime.settings.sources import load

    settings = load(
        config,
        {
            "kafka": {"bootstrap_servers": bootstrap},
            "log": {"level": log_level},
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
    _run(settings)


def _run(settings: "Settings") -> None:
    from ..runtime.cli.until_signalled import run_until_stopped
    from ..runtime.observe import logs
    from .assembly import assemble
    from .server import serve

    log = logs.get_logger(__name__)
    shown = {"bootstrap": settings.kafka.bootstrap_servers, "read_only": settings.console.read_only}

    async def main(stop: "asyncio.Event") -> None:
        ready = lambda url: log.info("console", url=url, **shown)  # noqa: E731
        await serve(assemble(settings), settings.console.http_address, stop=stop, ready=ready)

    run_until_stopped(main)
