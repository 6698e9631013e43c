"""`murmura deadletters redrive`."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import SetupError
from .. import options
from . import ranges
from .letters import AgentNames, Reasons, Topics, select

if TYPE_CHECKING:
    import asyncio

    from ...kafka.sending.transactional_sender import Sender
    from ...redrive.rules import Redrive, Tally
    from ...settings.settings import Settings
    from ...wire.dead_letter_records import Selection


def redrive(
    reason: Reasons = None,
    agent: AgentNames = None,
    topic: Topics = None,
    since: ranges.Since = None,
    until: ranges.Until = None,
    offsets: ranges.Offsets = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters that were not redriven yet.")] = False,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="retries|original|TOPIC", help="The target: topic of retries, original topic, or another."
        ),
    ] = "retries",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only, send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.01, metavar="N", help="Maximum records per second.")
    ] = None,
    out_of_order: Annotated[
        bool, typer.Option("--out-of-order", help="Include records of topics that are processed in key order.")
    ] = False,
    agents: Annotated[
        list[str] | None,
        typer.Option(
            "--agents", metavar="AGENT", help="MODULE:ATTRIBUTE of your own agents, in addition to the installed ones."
        ),
    ] = None,
    no_transactions: Annotated[
        bool, typer.Option("--no-transactions", help="Send without transactions: a kill may repeat one batch.")
    ] = False,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Send dead letters again, each once.

    By default they go to the topic of retries, due at once, and only the failed agent is asked. Results keep their ids.
    Each transaction also writes markers to the dead-letter topic: neither a second run nor a kill sends a record twice,
    and a second redrive that is started meanwhile takes over.

    Not sent: cut or unreadable records, and records of topics that are processed in key order.

    Example: [bold]murmura deadletters redrive --reason agent_failed --since 24h --dry-run[/bold]

    All of them, slowly, to their original topics: [bold]murmura deadletters redrive --all --to original
    --rate 50[/bold]
    """
    settings = options.settings(config, bootstrap=bootstrap)
    selection = select(reason, agent, topic, since, until, offsets)
    if selection.is_all != everything:
        raise SetupError("give --all, or say which: --reason, --agent, --topic, --since, --until, --offsets")
    rules = _make_rules(settings, to, agents or [], out_of_order)
    if dry_run or everything:
        tally = _count(settings, selection, rules)
        typer.echo(_describe_plan(tally, rules.target))
        if dry_run or not tally.sendable:
            return
        if not yes and not _confirm():
            raise SetupError("nothing was sent; --yes sends without asking")
    make_sender = _choose_sender(settings, no_transactions)
    done = _send(settings, selection, rules, make_sender, rate)
    typer.echo(f"sent {done.sent:,} to {rules.target}{_describe_rest(done)}", err=True)


def _make_rules(settings: "Settings", to: str, own: list[str], out_of_order: bool) -> "Redrive":
    """Return target and conditions, after checking the broker and the installed agents."""
    import asyncio

    from ...redrive.preparation import find_known_agents, make_rules

    return asyncio.run(make_rules(settings, to, find_known_agents(settings, own), out_of_order=out_of_order))


def _count(settings: "Settings", selection: "Selection", rules: "Redrive") -> "Tally":
    from ...redrive.dead_letter_reader import LetterScan
    from ...redrive.redrive import count
    from ..until_signalled import run_cancellable

    scan = LetterScan(settings.kafka, settings.dead_letters)
    return run_cancellable(lambda stop: count(scan, selection, rules))


def _describe_plan(tally: "Tally", target: str) -> str:
    destination = "the topics that they came from" if target == "original" else target
    return f"{tally.sendable:,} of {tally.chosen:,} dead letters would go to {destination}{_describe_rest(tally)}"


def _describe_rest(tally: "Tally") -> str:
    parts = [f"{tally.before:,} were sent again before"] if tally.before else []
    parts += [f"{records:,} are refused: {why.value}" for why, records in tally.refused.items()]
    return "".join(f"\n  {part}" for part in parts)


def _confirm() -> bool:
    return sys.stdin.isatty() and typer.confirm("Send them?")


def _choose_sender(settings: "Settings", no_transactions: bool) -> "Callable[[], Sender]":
    import asyncio

    from ...redrive.preparation import sender_factory, supports_transactions

    transactions = not no_transactions and asyncio.run(supports_transactions(settings))
    if not transactions:
        typer.echo("without transactions: a kill may repeat one batch", err=True)
    return sender_factory(settings, transactions=transactions)


def _send(
    settings: "Settings",
    selection: "Selection",
    rules: "Redrive",
    make_sender: "Callable[[], Sender]",
    rate: float | None,
) -> "Tally":
    from ...redrive.dead_letter_reader import LetterScan
    from ...redrive.redrive import send_again
    from ..until_signalled import run_until_stopped
    from .progress import progress_bar

    with progress_bar("sent") as bar:
        scan = LetterScan(settings.kafka, settings.dead_letters, progress=bar.advance)

        async def main(stop: "asyncio.Event") -> "Tally":
            return await send_again(
                scan,
                selection,
                rules,
                make_sender,
                stop=stop,
                rate=rate,
                clock=time.time,
                on_sent=bar.count,
                on_pass=lambda: bar.begin(scan.offsets),
            )

        return run_until_stopped(main)
