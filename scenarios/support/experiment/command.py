"""`murmura demo-experiment`: two experiments on one screen, from the training of the versions to their end."""

import asyncio
import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ....runtime.cli import options

if TYPE_CHECKING:
    from ....runtime.release.store import ModelStore
    from ....runtime.settings.settings import Settings
    from ...stage.desk import Desk
    from .story import Say, Story, Trial

AGENTS: Final = ("classification",)
LONGEST_S: Final = 1800.0
"""How long an experiment may take: minutes, and more on a busy machine."""
RANDOM_SHARE: Final = 1.0
"""People judge an answer of every customer, so that the demo ends in minutes."""
HOURS: Final = {"attribution_hours": 1 / 60, "min_hours": 2 / 60, "hold_back_hours": 1 / 60}
"""A day is a minute or two here; everything else of the rules is the default."""


def demo_experiment(
    rate: Annotated[float, typer.Option("--rate", min=1, max=500, help="Customers' messages per second.")] = 30.0,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="FOLDER", help="Keep rows, versions and store; a new folder.")
    ] = None,
    device: options.Device = None,
    http: Annotated[
        str | None, typer.Option("--http", metavar="HOST:PORT", help="Health and metrics. Default: a free port, shown.")
    ] = None,
) -> None:
    """Watch a better version being promoted and a worse one being stopped, by their answers alone.

    Three versions of a model are trained from few, all and wrongly labelled examples. Customers write, people label the answers
    that are drawn for them (one label in ten is wrong), and the rules of the experiment decide: default rules, with minutes in
    place of days.

    Takes about ten minutes. Needs the training extra, and no Kafka.

    Example: [bold]murmura demo-experiment --rate 40[/bold]
    """
    print("murmura demo-experiment: a better and a worse version beside the current one, in this process", flush=True)
    from ...stage.work import need_training, work_folder

    need_training("demo-experiment")
    from ....runtime.cli.until_signalled import run_until_stopped
    from ....runtime.kafka.embedded_broker import EmbeddedBroker
    from ....runtime.observe import logs

    held = io.StringIO()
    logs.configure("warning", "pretty", stream=held)
    try:
        with work_folder(keep) as work, EmbeddedBroker(_topics()) as broker:
            settings = _settings(work, broker.bootstrap, http, device)
            desk, story = run_until_stopped(lambda stop: _demo(settings, work, rate, stop))
    finally:
        sys.stderr.write(held.getvalue())
    print(
        f"promoted {story.promoted}, stopped {story.stopped}, published {desk.published}, answered {desk.answered}, "
        f"lost {desk.open}",
        flush=True,
    )
    raise typer.Exit(0 if (story.promoted, story.stopped, desk.open, desk.dead_lettered) == (1, 1, 0, 0) else 1)


def _topics() -> dict[str, int]:
    from ...stage.demo_process import topics
    from ..place import TOPIC

    one = dict.fromkeys(("murmura.models", "murmura.events", "murmura.experiments"), 1)
    return topics(TOPIC) | one | {"murmura.reviews": 3}


def _settings(work: Path, bootstrap: str, http: str | None, device: str | None) -> "Settings":
    from ...stage.demo_process import demo_settings
    from ..place import TOPIC
    from .versions import MODEL

    model = {"store": str(work / "store"), "name": MODEL, "device": device}
    return demo_settings(bootstrap, http, TOPIC, model, AGENTS, {"reviews": {"random_share": RANDOM_SHARE}})


async def _demo(settings: "Settings", work: Path, rate: float, stop: asyncio.Event) -> "tuple[Desk, Story]":
    """Train the versions, serve the first one, and let the two experiments run during the traffic, until their end or `stop`."""
    from ....runtime.kafka.groupless_reader import open_reader
    from ....runtime.release.store import ModelStore
    from ...stage.demo_process import serving
    from ...stage.desk import Desk
    from ...stage.traffic import Customers, open_hours, text_sample
    from ..place import TOPIC
    from .people import People
    from .story import Story
    from .versions import read_answers

    store, say = ModelStore(str(work / "store")), _timed_print()
    trials = await _make_trials(settings, store, work, say)
    answers, desk = read_answers(), Desk(frozenset(AGENTS))
    async with (
        serving(settings, answering=AGENTS) as (started, server),
        Customers(settings, desk, TOPIC) as customers,
    ):
        story = Story(settings, _write_rules(work), customers, People(answers), say)
        events = {f"{settings.prefix}.reviews": story.read_review, f"{settings.prefix}.events": story.read_event}
        results = [f"{settings.prefix}.{agent}.results" for agent in AGENTS]
        topics = [*results, f"{settings.prefix}.deadletters", *events]
        say(f"serving; metrics {started.url}/metrics, health {started.url}/readyz")
        async with open_reader(settings.kafka, topics, from_beginning=True) as consumer:
            running = asyncio.create_task(story.run(trials, LONGEST_S))
            samples = [text_sample(text) for text in answers]
            await open_hours(customers, consumer, samples, rate, stop, server, others=events, until=running)
    return desk, story


async def _make_trials(settings: "Settings", store: "ModelStore", work: Path, say: "Say") -> "tuple[Trial, Trial]":
    """Train and push the three versions, release the first, and return the other two."""
    from datetime import UTC, datetime

    from ....runtime.release.states import publish_state
    from ....schemas.release import released
    from ....schemas.serving_event import ServingEventKind
    from ...stage.subcommand import run_subcommand
    from .story import Trial
    from .versions import MODEL, few_shot_arguments, make_versions

    pushed = []
    for version in make_versions():
        say(f"training the {version.name} version: {version.what}")
        folder = work / version.name / MODEL
        folder.parent.mkdir()
        arguments = few_shot_arguments(version.write(folder.parent), folder)
        async with run_subcommand("few-shot", *arguments, on_line=_print_score) as process:
            await process.finish()
        pushed.append(store.push(folder))
    first, better, worse = pushed
    state = released(
        None, MODEL, first, store.digest(MODEL, first), by="the demo", why="the first", at=datetime.now(UTC)
    )
    await publish_state(settings.kafka, f"{settings.prefix}.models", state)
    return (
        Trial(better, "learned from all examples", ServingEventKind.EXPERIMENT_COMPLETED),
        Trial(worse, "learned from wrong labels", ServingEventKind.EXPERIMENT_STOPPED),
    )


def _write_rules(work: Path) -> Path:
    file = work / "rules.yaml"
    file.write_text("".join(f"{key}: {value:.4f}\n" for key, value in HOURS.items()), encoding="utf-8")
    return file


def _print_score(line: str) -> None:
    """Print what a training says of the score that is to be expected."""
    if line.startswith("cross-validated"):
        print(f"         {line}", flush=True)


def _timed_print() -> "Say":
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {line}", flush=True)

    return say
