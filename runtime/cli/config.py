"""`murmura config`."""

import json
from typing import Annotated

import typer

from . import options

config_app = typer.Typer(help="Show and check the settings of a process.", no_args_is_help=True)


@config_app.command()
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Add the source of each value.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: key to value and source.")] = False,
    config: options.Config = None,
) -> None:
    """Show every effective setting: file, environment and defaults merged, secrets starred.

    Example: [bold]murmura config show --origin --config murmura.yaml[/bold]
    """
    from ..agent.settings_report import report

    rows = report(options.settings(config))
    if as_json:
        entries = {row.key: {"value": row.value, "source": row.source} for row in rows}
        typer.echo(json.dumps(entries, indent=2))
        return
    lines = [f"{row.key}: {json.dumps(row.value, ensure_ascii=False)}" for row in rows]
    width = max(map(len, lines))
    for row, line in zip(rows, lines, strict=True):
        typer.echo(f"{line:<{width}}  # {row.source}" if origin else line)


@config_app.command()
def check(config: options.Config = None) -> None:
    """Validate the settings and report the result in one line. Needs no broker.

    Example: [bold]murmura config check --config murmura.yaml[/bold]
    """
    from ..agent.settings_report import report

    rows = report(options.settings(config))
    given = sum(row.source != "default" for row in rows)
    typer.echo(f"the settings are sound: {given} given, {len(rows) - given} defaults")
