"""`murmura demo`: both built-in agents answer a support desk's messages, with broker and model in this process."""

import asyncio
import io
import sys
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ...runtime.cli import options
from ...runtime.errors import SetupError

if TYPE_CHECKING:
    from rich.console import Console

    from ...runtime.serve import Serving
    from ...runtime.settings.settings import Settings
    from ..stage.desk import Desk
    from ..stage.screen import Facts
    from ..stage.talk import Talk
    from ..stage.traffic import Customers, Sample

Http = Annotated[
    str | None, typer.Option("--http", metavar="HOST:PORT", help="Health and metrics. Default: a free port, shown.")
]


REVIEWS: Final = {"per_minute": 30, "random_per_minute": 10}
"""So that there is something to review."""


def demo(
    model: options.Model = None,
    messages: Annotated[
        Path | None, typer.Option("--messages", metavar="FILE", help="JSON lines with `text`. Default: our samples.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=1000, help="Messages per second.")] = 6.0,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=1, metavar="N", help="Duration. Default: until Ctrl-C.")
    ] = None,
    device: options.Device = None,
    http: Http = None,
    console: Annotated[
        str | None,
        typer.Option(
            "--console", metavar="HOST:PORT", help="Open the console for the browser beside it; port 0: a free one."
        ),
    ] = None,
) -> None:
    """Watch messages being classified and analysed, live.

    Needs no Kafka and no torch: a broker and a small model run in this process. Type a message of your own, and judge its
    answer with a key.

    Example: [bold]murmura demo --seconds 20[/bold]

    With the console, where answers are reviewed in the browser: [bold]murmura demo --console 127.0.0.1:9480[/bold]

    With your own model and texts: [bold]murmura demo --model models/desk --messages texts.jsonl[/bold]
    """
    print("murmura demo: a bank's support desk, answered in this process", flush=True)
    # Imported after the first output: these take a second.
    from ...runtime.cli.until_signalled import run_until_stopped
    from ...runtime.kafka.embedded_broker import EmbeddedBroker
    from ...runtime.observe import logs
    from ..stage.demo_process import demo_settings, topics
    from ..stage.talk import talk_topics
    from .place import MESSAGES, MODEL, POLICY, TOPIC

    folder, samples_file = model or MODEL, messages or MESSAGES

    held = io.StringIO()  # log lines would break the live table
    logs.configure("warning", "pretty", stream=held)
    try:
        reviewed = ["murmura.reviews", "murmura.models", "murmura.events"] if console is not None else []
        with EmbeddedBroker(topics(TOPIC, *talk_topics(POLICY), *reviewed)) as broker:
            sections = {"reviews": REVIEWS} if console is not None else {}
            settings = demo_settings(
                broker.bootstrap, http, TOPIC, {"folder": folder, "device": device}, sections=sections
            )
            desk = run_until_stopped(lambda stop: _demo(settings, samples_file, rate, seconds, console, stop))
    finally:
        sys.stderr.write(held.getvalue())
    print(
        f"published {desk.published}, answered {desk.answered}, dead-lettered {desk.dead_lettered}, lost {desk.open}",
        flush=True,
    )
    raise typer.Exit(1 if desk.open else 0)


async def _demo(
    settings: "Settings",
    samples_file: Path,
    rate: float,
    seconds: float | None,
    console: str | None,
    stop: asyncio.Event,
) -> "Desk":
    """Load the model, serve, and show the answers until `stop` or for `seconds`."""
    from ...runtime.model.deltas.assembled import resolve
    from ...runtime.model.folders.folder import read_manifest
    from ...runtime.model.model import Model
    from ..stage.demo_process import serving
    from ..stage.talk import AGENT, Talk, find_misfit, read_conversations, with_talk
    from ..stage.traffic import read_samples
    from .place import CONVERSATIONS, FAQ, FAQ_THRESHOLD, POLICY

    samples = read_samples(samples_file)
    folder, device = settings.model.folder, settings.model.device
    assert folder is not None
    manifest = read_manifest(folder)
    first_time = ", put together with its base on first use" if manifest.is_delta else ""
    print(f"model: {folder}{first_time}", flush=True)
    talk = None
    if (misfit := find_misfit(POLICY, manifest)) is None:
        # The threshold is that of vectors as the demo's model gives them.
        knowledge = {"knowledge": str(FAQ), "knowledge_threshold": FAQ_THRESHOLD} if manifest.pooled_layers else {}
        talk, settings = Talk(read_conversations(CONVERSATIONS)), with_talk(settings, POLICY, knowledge)
    else:
        print(f"no conversation is shown: {misfit}", flush=True)
    model = await asyncio.to_thread(lambda: Model.load(resolve(folder), device=device))
    async with (
        serving(settings, model, [AGENT] if talk else []) as (started, server),
        _open_console(settings, console, started.url) as url,
    ):
        return await _watch(settings, started, samples, talk, rate, seconds, url, stop, server)


def _open_console(
    settings: "Settings", address: str | None, process_url: str
) -> "AbstractAsyncContextManager[str | None]":
    """Serve the console where an address is given."""
    if address is None:
        return nullcontext()
    try:
        from ..stage.console_beside import console_beside
    except ModuleNotFoundError as error:
        raise SetupError(
            f"--console needs {error.name}: `make console`, or pip install 'murmura[demo,console]'"
        ) from None
    return console_beside(settings, address, process_url)


async def _watch(
    settings: "Settings",
    serving: "Serving",
    samples: "list[Sample]",
    talk: "Talk | None",
    rate: float,
    seconds: float | None,
    console_url: str | None,
    stop: asyncio.Event,
    server: asyncio.Task[None],
) -> "Desk":
    """Send samples and show their answers; then wait for the last ones and print the next steps."""
    from rich.console import Console

    from ...runtime.kafka.groupless_reader import open_reader
    from ..stage.demo_process import ANSWERING, ANSWERS
    from ..stage.desk import Desk
    from ..stage.screen import Facts, farewell
    from ..stage.talk import REPLIES
    from ..stage.traffic import Customers, open_hours
    from .place import RECIPE, TOPIC

    console = Console()
    facts = Facts.from_model(serving.engine.model, serving.url, console_url)
    desk = Desk(frozenset(ANSWERING))
    async with (
        open_reader(settings.kafka, [*ANSWERS, REPLIES], from_beginning=True) as consumer,
        Customers(settings, desk, TOPIC) as customers,
        _show(console, facts, desk, talk, serving, customers),
    ):
        others = {REPLIES: talk.read_reply} if talk else {}
        talking = asyncio.create_task(talk.keep_talking(customers.send_record)) if talk else None
        await open_hours(
            customers, consumer, samples, rate, stop, server, seconds=seconds, others=others, until=talking
        )
    farewell(console, facts, desk, talk.exchanges if talk else (), str(settings.model.folder), str(RECIPE))
    return desk


def _show(
    console: "Console",
    facts: "Facts",
    desk: "Desk",
    talk: "Talk | None",
    serving: "Serving",
    customers: "Customers",
) -> "AbstractAsyncContextManager[None]":
    """Show a live table on a terminal, else print a line per message."""
    from ..stage.live import can_show, show_live
    from ..stage.person import Person
    from ..stage.screen import addresses_line, plain_line, screen, talk_line

    if can_show(console):
        draw = partial(screen, facts, desk, talk.exchanges if talk else None)
        return show_live(console, desk, serving.metrics, draw, Person(desk, customers, facts.tasks).types)
    console.print(addresses_line(facts), soft_wrap=True)
    desk.on_settled.append(lambda message: print(plain_line(message, facts.tasks), flush=True))
    if talk is not None:
        talk.on_reply.append(lambda exchange: print(talk_line(exchange), flush=True))
    return nullcontext()
