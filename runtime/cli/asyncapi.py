"""`murmura asyncapi`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options


def asyncapi(
    agents: options.Agents = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Output file. Default: standard output.")
    ] = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Write the AsyncAPI 3 document of a process: topics, payload schemas, readers and writers. Needs no broker.

    Example: [bold]murmura asyncapi classification dialogue --output asyncapi.json[/bold]
    """
    from ..agent.discovery import find_agents
    from ..agent.routes import configure_agents
    from .asyncapi_document import as_text, document

    settings = options.settings(config, bootstrap=bootstrap)
    text = as_text(document(settings, configure_agents(settings, find_agents(agents or [], settings.prefix))))
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
