"""`murmura deadletters list | show | redrive | put`."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import SetupError
from .. import options
from . import ranges
from .letters import AgentNames, AsJson, Reasons, Topics, select
from .redrive import redrive

if TYPE_CHECKING:
    import asyncio

    from ...redrive.dead_letter_reader import LetterScan
    from ...settings.settings import Settings
    from ...wire.dead_letter_records import Letter, Selection

deadletters_app = typer.Typer(
    help="List dead letters and send them again.", no_args_is_help=True, rich_markup_mode="rich"
)
deadletters_app.command("redrive")(redrive)


@deadletters_app.command("list")
def list_letters(
    reason: Reasons = None,
    agent: AgentNames = None,
    topic: Topics = None,
    since: ranges.Since = None,
    until: ranges.Until = None,
    offsets: ranges.Offsets = None,
    as_json: AsJson = False,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Count dead letters by reason, agent, topic and version, with the first and the last time.

    Redriven ones are counted in their own column. Times and offsets are those of the dead letters.

    Example: [bold]murmura deadletters list --reason agent_failed --since 24h[/bold]
    """
    from ...wire.dead_letter_records import Count, Group, group_of

    settings = options.settings(config, bootstrap=bootstrap)
    selection = select(reason, agent, topic, since, until, offsets)
    counts: dict[Group, Count] = {}

    async def count(letters: "Sequence[Letter]") -> None:
        for letter in letters:
            counts.setdefault(group_of(letter), Count()).add(letter)

    scan = _scan(settings, selection, count)
    ordered = sorted(counts.items(), key=lambda item: -item[1].letters)
    if as_json:
        for group, found in ordered:
            typer.echo(
                json.dumps(
                    {
                        **group._asdict(),
                        "letters": found.letters,
                        "redriven": found.redriven,
                        "first": _format_utc(found.first),
                        "last": _format_utc(found.last),
                    }
                )
            )
    else:
        from ..tables import print_table

        rows = [
            [
                g.reason,
                g.agent or "-",
                g.topic,
                str(g.version),
                str(n.letters),
                str(n.redriven),
                _format_utc(n.first),
                _format_utc(n.last),
            ]
            for g, n in ordered
        ]
        print_table(["reason", "agent", "topic", "version", "letters", "redriven", "first", "last"], rows)
        total = sum(found.letters for found in counts.values())
        typer.echo(f"{total:,} dead letters in {settings.dead_letters}{_describe_foreign(scan)}", err=True)


@deadletters_app.command("show")
def show(
    reason: Reasons = None,
    agent: AgentNames = None,
    topic: Topics = None,
    since: ranges.Since = None,
    until: ranges.Until = None,
    offsets: ranges.Offsets = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Maximum number of dead letters.")] = 20,
    text: Annotated[bool, typer.Option("--text", help="Include the value, which people wrote.")] = False,
    as_json: AsJson = False,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Show single dead letters: coordinates, the original's coordinates, and the reason.

    Example: [bold]murmura deadletters show --offsets 0:17 --text[/bold]
    """
    settings = options.settings(config, bootstrap=bootstrap)
    selection = select(reason, agent, topic, since, until, offsets)
    shown = 0

    async def print_some(letters: "Sequence[Letter]") -> None:
        nonlocal shown
        for letter in letters[: limit - shown]:
            shown += 1
            facts = _facts(letter, text)
            typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else _paragraph(facts))

    _scan(settings, selection, print_some)
    if shown == limit:
        typer.echo(f"the first {limit}; --limit N shows more", err=True)
    elif not shown:
        typer.echo("no dead letter is among these", err=True)


def _scan(settings: "Settings", selection: "Selection", handle: "Callable[[Sequence[Letter]], Any]") -> "LetterScan":
    from ...redrive.dead_letter_reader import LetterScan
    from ..until_signalled import run_cancellable

    scan = LetterScan(settings.kafka, settings.dead_letters)

    async def main(stop: "asyncio.Event") -> None:
        await scan.read_markers()
        await scan.read(selection, handle)

    run_cancellable(main)
    return scan


def _facts(letter: "Letter", text: bool) -> dict[str, Any]:
    record, fields = letter.record, letter.fields
    facts: dict[str, Any] = {
        "at": f"{record.partition}/{record.offset}",
        "original": f"{fields.topic}/{fields.partition}/{fields.offset}",
        **fields.model_dump(mode="json", exclude={"topic", "partition", "offset", "timestamp"}),
        "redriven": letter.redriven,
        "cut": letter.is_cut,
    }
    if text:
        facts["value"] = None if record.value is None else record.value.decode(errors="replace")
    return facts


def _paragraph(facts: dict[str, Any]) -> str:
    from ...wire.summary import safe

    agent = f" of {facts['agent']}" if facts["agent"] else ""
    marks = "".join(f", {mark}" for mark in ("redriven", "cut") if facts[mark])
    lines = [
        f"{facts['at']}  {facts['reason']}{agent}: {safe(facts['message'])}",
        f"    original {facts['original']}, given up {facts['time']} after {facts['attempts']} attempt(s){marks}",
    ]
    if "value" in facts:
        lines.append(f"    {safe(facts['value'] or '(no value)')}")
    return "\n".join(lines)


def _describe_foreign(scan: "LetterScan") -> str:
    return f"; {scan.foreign:,} other records there are no dead letters" if scan.foreign else ""


def _format_utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@deadletters_app.command("put")
def put(
    place: Annotated[str, typer.Argument(metavar="TOPIC/PARTITION/OFFSET", help="The unfinished record.")],
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="The reason in the dead letter. Do not quote the text.")
    ] = "set aside by hand",
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
    group: options.Group = None,
) -> None:
    """Set one unfinished record aside: write its dead letter and commit the offset after it.

    Stop the processes of the group first. The record must be the next one that the group would read. Finished records
    after it are processed again, with the same prediction ids. A kill between the two steps leaves only the dead
    letter: run the command again, which writes it once more.

    Example: [bold]murmura deadletters put murmura.analysis.requests/3/1041[/bold]
    """
    from ...redrive.set_aside import read_place, set_aside
    from ..until_signalled import run_cancellable

    settings = options.settings(config, bootstrap=bootstrap, group=group)
    found = read_place(place)
    if not why.strip():
        raise SetupError("--why: say why, in a few words")
    run_cancellable(lambda stop: set_aside(settings, found, why))
    typer.echo(f"{found} is in {settings.dead_letters}; group {settings.group} goes on at offset {found.offset + 1}")
