"""`murmura demo`: both built-in agents answer a support desk's messages, on a broker and a model in this process."""

import asyncio
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..runtime import cli_options as options
from ..runtime.errors import SetupError

if TYPE_CHECKING:
    from ..runtime.app import Serving
    from ..runtime.model import Model
    from ..runtime.settings import Settings
    from .demo_desk import Desk
    from .demo_traffic import Sample

HERE: Final = Path(__file__).resolve().parents[1] / "deploy" / "demo"
_AGENTS: Final = ("classification", "analysis")
_PARTITIONS: Final = 4


def demo(
    model: options.Model = None,
    messages: Annotated[
        Path | None, typer.Option("--messages", metavar="FILE", help="JSON lines with `text`. Default: our samples.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=1000, help="Messages a second.")] = 6.0,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=1, metavar="N", help="End after so long. Default: at Ctrl-C.")
    ] = None,
    device: options.Device = None,
    http: options.Http = None,
) -> None:
    """Watch messages being classified and analysed, live.

    Needs no Kafka and no torch: a broker and a small model run in this process. Type a message of your own.

    Example: [bold]murmura demo --seconds 20[/bold]

    With your own model and texts: [bold]murmura demo --model models/desk --messages texts.jsonl[/bold]
    """
    print("murmura demo: a bank's support desk, answered in this process", flush=True)
    folder = model or _from_repository("model", "--model FOLDER")
    samples_file = messages or _from_repository("messages.jsonl", "--messages FILE")
    # Imported after the first line: they take a second.
    from ..runtime import cli_run, logs  # noqa: PLC0415
    from ..runtime.embedded import EmbeddedBroker  # noqa: PLC0415

    held = io.StringIO()  # a log line in the middle of the table would tear it
    logs.configure("warning", "pretty", stream=held)
    try:
        with EmbeddedBroker(dict.fromkeys(_topics(), _PARTITIONS)) as broker:
            settings = _settings(broker.bootstrap, folder, device, http)
            desk = cli_run.run(lambda stop: _demo(settings, samples_file, rate, seconds, stop))
    finally:
        sys.stderr.write(held.getvalue())
    print(
        f"published {desk.published}, answered {desk.answered}, dead-lettered {desk.dead_lettered}, lost {desk.open}",
        flush=True,
    )
    raise typer.Exit(1 if desk.open else 0)


def _from_repository(name: str, option: str) -> Path:
    path = HERE / name
    if not path.exists():
        raise SetupError(f"the demo's {name} is in the repository, not here ({path}): use a clone, or {option}")
    return path


def _topics() -> tuple[str, ...]:
    from .demo_traffic import TOPIC  # noqa: PLC0415

    return (TOPIC, *(f"murmura.{agent}.results" for agent in _AGENTS), "murmura.deadletters")


def _settings(bootstrap: str, folder: Path, device: str | None, http: str | None) -> "Settings":
    """Return settings that owe nothing to the environment: a production MURMURA_CONFIG must not reach into a demo."""
    from ..runtime.embedded import FETCH_MAX_WAIT_MS  # noqa: PLC0415
    from ..runtime.settings_sources import load  # noqa: PLC0415
    from .demo_traffic import TOPIC  # noqa: PLC0415

    flags = {
        "app": "demo",
        "kafka": {"bootstrap_servers": bootstrap, "fetch_max_wait_ms": FETCH_MAX_WAIT_MS},
        "model": {"folder": folder, "device": device},
        "producer": {"linger_ms": 0},
        "agents": {agent: {"topics": [TOPIC]} for agent in _AGENTS},
        "http": http or "127.0.0.1:0",
    }
    return load(flags=flags, environment=False)


async def _demo(
    settings: "Settings", samples_file: Path, rate: float, seconds: float | None, stop: asyncio.Event
) -> "Desk":
    """Load the model, serve, and watch what is served until `stop` or for `seconds`."""
    from ..runtime.model import Model  # noqa: PLC0415
    from ..runtime.store import read_manifest, resolve  # noqa: PLC0415
    from .demo_traffic import read_samples  # noqa: PLC0415

    samples = read_samples(samples_file)
    folder, device = settings.model.folder, settings.model.device
    assert folder is not None
    first_time = ", put together with its base on first use" if read_manifest(folder).is_delta else ""
    print(f"model: {folder}{first_time}", flush=True)
    model = await asyncio.to_thread(lambda: Model.load(resolve(folder), device=device))
    enough = asyncio.Event()
    started: asyncio.Future[Serving] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(_serve(settings, model, started, enough))
    try:
        await asyncio.wait((server, started), return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            await server  # it did not start, and says why
        return await _watch(settings, await started, samples, rate, seconds, stop, server)
    finally:
        enough.set()
        await server


async def _serve(settings: "Settings", model: "Model", started: "asyncio.Future[Serving]", stop: asyncio.Event) -> None:
    from ..runtime.app import serve  # noqa: PLC0415
    from . import analysis, classification  # noqa: PLC0415

    await serve(settings, [classification.agent, analysis.agent], model=model, ready=started.set_result, stop=stop)


async def _watch(
    settings: "Settings",
    serving: "Serving",
    samples: "list[Sample]",
    rate: float,
    seconds: float | None,
    stop: asyncio.Event,
    server: asyncio.Task[None],
) -> "Desk":
    """Send samples and show what becomes of them; then wait for the last answers and say how to go on."""
    from rich.console import Console  # noqa: PLC0415

    from ..runtime.reader import reading  # noqa: PLC0415
    from .demo_desk import Desk  # noqa: PLC0415
    from .demo_live import shown  # noqa: PLC0415
    from .demo_screen import Facts, farewell  # noqa: PLC0415
    from .demo_traffic import Customers, collect, settled  # noqa: PLC0415

    console = Console()
    facts = Facts.of(serving.engine.model, serving.url)
    desk = Desk(frozenset(_AGENTS))
    async with (
        reading(settings.kafka, _topics()[1:], from_beginning=True) as consumer,
        Customers(settings, desk) as customers,
        shown(console, facts, desk, serving.metrics, customers.say),
    ):
        collecting = asyncio.create_task(collect(consumer, desk))
        sending = asyncio.create_task(customers.keep_sending(samples, rate, stop))
        parts = (collecting, sending, server)
        await asyncio.wait(parts, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await sending
        if not server.done():
            await settled(desk)
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
    farewell(console, facts, desk, str(settings.model.folder))
    return desk
