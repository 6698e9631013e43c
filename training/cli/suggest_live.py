"""What `murmura suggest --live` does: chooses from the requests on Kafka, and asks people about them."""

import asyncio
from typing import TYPE_CHECKING

import typer

from .ingest import plan_of_agents

if TYPE_CHECKING:
    from ...runtime.model.model import Model
    from ...runtime.settings.settings import Settings
    from ..suggest.choose import Wanted
    from ..suggest.states import DropoutPasses


def suggest_live(
    settings: "Settings",
    agents: list[str],
    wanted: "Wanted",
    model: "Model",
    passes: "DropoutPasses | None",
    *,
    latest: int,
    per_minute: float,
) -> None:
    """Choose, publish the reviews, and print what was done. SetupError where the topic of reviews is missing."""
    from ...runtime.cli.records.progress import progress_bar
    from ...runtime.kafka.topics import require_topics
    from ..ingest.manifest import Options
    from ..suggest.ask_people import ask_people, choose_live
    from ..suggest.summary import describe_choice

    topic = f"{settings.prefix}.reviews"

    async def main() -> None:
        await require_topics(settings.kafka, [topic])
        plan = await plan_of_agents(settings, agents, Options(inputs=settings.inputs))
        with progress_bar("texts") as bar:
            found, read = await choose_live(
                settings.kafka, plan, wanted, model, passes, latest=latest, progress=bar.count
            )
        gone = f"{read.judged:,} judged or asked about, {read.unread:,} gone or without a text"
        typer.echo(
            f"{len(found.chosen):,} of {read.answered:,} live requests, by {wanted.strategy.value}; left out: {gone}"
            f"{', ' if found.left_out else ''}{found.left_out}"
        )
        described = describe_choice(found, wanted) if found.chosen else []
        for line in (*([found.note] if found.note else []), *described):
            typer.echo(line)
        with progress_bar("reviews") as bar:
            sent = await ask_people(
                settings.kafka, topic, found, wanted, model, per_minute=per_minute, progress=bar.count
            )
        typer.echo(f"published {sent:,} reviews to {topic}; `murmura ingest` makes rows of the answers")

    asyncio.run(main())
