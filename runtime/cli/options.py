"""Options that several commands share, and their conversion to settings."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..agent.discovery import default_agents
from ..settings.settings import Settings

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings in YAML. Default: $MURMURA_CONFIG.")
]
Bootstrap = Annotated[
    str | None, typer.Option("--bootstrap", metavar="HOST:PORT", help="Address of Kafka. Default: localhost:9092.")
]
Model = Annotated[Path | None, typer.Option("--model", metavar="FOLDER", help="A model folder or a delta folder.")]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="auto|cuda|cpu", help="The device to use. Default: auto, cuda before cpu."),
]
Http = Annotated[
    str | None,
    typer.Option(
        "--http", metavar="HOST:PORT", help="Health and metrics. Default: 127.0.0.1:9464; port 0: a free one."
    ),
]
LogLevel = Annotated[str | None, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")]
Group = Annotated[str | None, typer.Option("--group", metavar="NAME", help="Consumer group. Default: murmura.<app>.")]
Agents = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="AGENT",
        help=f"Names of installed agents, or MODULE:ATTRIBUTE of your own. Default: {' and '.join(default_agents())}.",
        show_default=False,
    ),
]


def settings(
    config: Path | None = None,
    *,
    bootstrap: str | None = None,
    group: str | None = None,
    model: Path | None = None,
    device: str | None = None,
    http: str | None = None,
    log_level: str | None = None,
    fetch_max_wait_ms: int | None = None,
    prefix: str | None = None,
    serving: bool = False,
) -> Settings:
    """Load the settings of a command. Options override the environment, which overrides the file. Raises SetupError.

    A command that is not `serving` asks `model` instead of those of `models`.
    """
    from ..settings.sources import load

    flags: dict[str, Any] = {
        "prefix": prefix,
        "kafka": {"bootstrap_servers": bootstrap, "group": group, "fetch_max_wait_ms": fetch_max_wait_ms},
        "model": {"folder": model, "device": device},
        "http": http,
        "log": {"level": log_level},
    }
    return load(config, flags, one_model=model is not None and not serving)
