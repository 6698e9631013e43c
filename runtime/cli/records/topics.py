"""`murmura topics`."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options

if TYPE_CHECKING:
    from ....schemas.topics import Topic
    from ...settings.settings import Settings


def topics(
    agents: options.Agents = None,
    create: Annotated[bool, typer.Option("--create", help="Create missing topics on the broker.")] = False,
    partitions: Annotated[
        int,
        typer.Option("--partitions", min=1, max=10_000, help="Partitions of topics that have many.", show_default=True),
    ] = 12,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Show the needed topics and whether they exist; create the missing ones.

    Example: [bold]murmura topics --create --bootstrap localhost:9092[/bold]

    With the topics of your own agent: [bold]murmura topics --create shop:router[/bold]
    """
    from ...kafka.topics import create_topics, fetch_partition_counts

    settings = options.settings(config, bootstrap=bootstrap)
    wanted = wanted_topics(settings, agents or [])
    made: list[str] = []
    if create:
        made = asyncio.run(create_topics(settings.kafka, wanted, many=partitions))
    existing = asyncio.run(fetch_partition_counts(settings.kafka))
    widest = max(map(len, wanted))
    for name, topic in wanted.items():
        found = _partitions(existing[name]) if name in existing else typer.style("missing", fg="red")
        typer.echo(f"{name:<{widest}}  {topic.record:<13}  {found}{', made now' if name in made else ''}")
    if wanted.keys() - existing.keys():
        typer.echo("make the missing ones with `murmura topics --create`", err=True)


def _partitions(count: int) -> str:
    return "1 partition" if count == 1 else f"{count} partitions"


def wanted_topics(settings: "Settings", agents: list[str]) -> "dict[str, Topic]":
    """Return the topics of the table and those of the agents and their settings, by full name."""
    from ....schemas.topics import named_topics
    from ...agent.discovery import find_agents
    from ...agent.routes import configure_agents
    from ...kafka.topics import OTHER_TOPIC

    wanted = dict(named_topics(settings.prefix))
    for agent in configure_agents(settings, find_agents(agents, settings.prefix)):
        for name in (*agent.topics, *agent.outputs):
            wanted.setdefault(name, OTHER_TOPIC)
    return wanted
