"""Options that select dead letters, shared by the commands that read them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ....schemas.deadletter import DeadLetterReason
from . import ranges

if TYPE_CHECKING:
    from ...wire.dead_letter_records import Selection

Reasons = Annotated[
    list[DeadLetterReason] | None,
    typer.Option("--reason", metavar="REASON", help="Only this reason. Repeatable."),
]
AgentNames = Annotated[
    list[str] | None, typer.Option("--agent", metavar="NAME", help="Only this agent; - selects those without an agent.")
]
Topics = Annotated[list[str] | None, typer.Option("--topic", metavar="TOPIC", help="Only originals of this topic.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


def select(
    reasons: Sequence[str] | None,
    agents: Sequence[str] | None,
    topics: Sequence[str] | None,
    since: str | None,
    until: str | None,
    offsets: Sequence[str] | None,
) -> "Selection":
    from ...agent.discovery import find_misspelling
    from ...wire.dead_letter_records import Selection

    for name in agents or ():
        if (doubt := find_misspelling(name)) is not None:
            typer.echo(doubt, err=True)
    return Selection(
        reasons=tuple(reasons or ()),
        agents=tuple(agents or ()),
        topics=tuple(topics or ()),
        since=ranges.read_time("--since", since),
        until=ranges.read_time("--until", until),
        offsets=ranges.read_offsets(offsets),
    )
