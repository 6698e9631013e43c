"""`murmura serve`."""

from typing import TYPE_CHECKING

from ..errors import SetupError
from . import options

if TYPE_CHECKING:
    import asyncio

    from ..agent.agent import Agent
    from ..agent.handler import Handler
    from ..settings.settings import Settings


def serve(
    agents: options.Agents = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
    model: options.Model = None,
    device: options.Device = None,
    group: options.Group = None,
    http: options.Http = None,
    log_level: options.LogLevel = None,
) -> None:
    """Answer the records of your topics until Ctrl-C.

    One consumer group reads the topics of all agents. An offset is committed when its result is acknowledged.

    Ctrl-C or SIGTERM finishes the records in flight and exits with code 0.

    Example: [bold]murmura serve --bootstrap localhost:9092 --model models/desk[/bold]

    With your own agent: [bold]murmura serve classification shop:router --model models/desk[/bold]
    """
    from ..agent.discovery import find_agents

    settings = options.settings(
        config,
        bootstrap=bootstrap,
        group=group,
        model=model,
        device=device,
        http=http,
        log_level=log_level,
        serving=True,
    )
    if settings.model.folder is None and settings.model.store is None and not settings.models:
        raise SetupError("no model to serve: name its folder with --model FOLDER (`murmura train` makes one)")
    _serve(settings, find_agents(agents or (), settings.prefix))


def _serve(settings: "Settings", agents: "list[Agent | Handler]") -> None:
    from .. import serve as app
    from ..observe import logs
    from .until_signalled import run_until_stopped

    logs.configure(settings.log.level, settings.log.format)
    log = logs.get_logger(__name__)

    async def main(stop: "asyncio.Event") -> None:
        await app.serve(settings, agents, stop=stop)

    run_until_stopped(
        main, on_stop=lambda: log.info("stopping", drain_s=settings.kafka.drain_s, again="ends it at once")
    )
