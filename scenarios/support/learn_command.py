"""`murmura demo-learn`: the whole loop on one screen, from a correction to the version trained on it."""

import asyncio
import contextlib
import io
import sys
import time
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ...runtime.cli import options
from ...runtime.errors import SetupError
from .command import Http

if TYPE_CHECKING:
    from rich.console import Console

    from ...runtime.serve import Serving
    from ...runtime.settings.settings import Settings
    from ..stage.board import Board, Stage, Step
    from ..stage.desk import Desk
    from ..stage.screen import Facts
    from ..stage.traffic import Customers, Sample
    from .learn import Script, Story

TRIAL_S: Final = 300.0
"""How long the new version may take to be tried, beside everything else that the machine does."""
QUICK_FETCH_MS: Final = 25
"""How often consumers of a quick run look for records: each look of each costs CPU time, which the training needs, too."""
DETAIL_EVERY_S: Final = 10.0
"""Minimum seconds between details of a stage, without a screen."""


def demo_learn(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FOLDER",
            help="Public data sets of the model: a share is trained on again, their tests are part of the gate.",
        ),
    ] = None,
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=200, help="Customers' messages per second.")] = 6.0,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Less training: 0.6 epochs, fewer texts that keep their answers; shorter pauses."),
    ] = False,
    stay: Annotated[bool, typer.Option("--stay", help="Keep answering at the end, until Ctrl-C.")] = False,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="FOLDER", help="Keep job, data set, gate report and versions; a new folder."),
    ] = None,
    device: options.Device = None,
    http: Http = None,
) -> None:
    """Watch a model learn from corrections while it keeps answering.

    A bank has a new product, loans, that its model does not know. The desk answers, people correct the answers, the model
    is retrained during the traffic, a gate compares both versions, the new version goes live, and the results for the new
    product and the old tasks are printed.

    Takes four to seven minutes. Needs the training extra, and no Kafka.

    Example: [bold]murmura demo-learn --stay[/bold], then type: can i get a loan for a used van
    """
    print(
        "murmura demo-learn: a bank's support desk learns a new product, in this process and one beside it", flush=True
    )
    from ..stage.work import need_training, work_folder

    need_training("demo-learn")
    from ...runtime.cli.until_signalled import run_until_stopped
    from ...runtime.kafka.embedded_broker import EmbeddedBroker
    from ...runtime.observe import logs

    held = io.StringIO()  # log lines would break the live screen
    logs.configure("warning", "pretty", stream=held)
    try:
        with work_folder(keep) as work, EmbeddedBroker(_topics()) as broker:
            settings = _publish_model(work, broker.bootstrap, http, device, quick=quick)
            script = _script(work, settings, data, quick=quick)
            desk, board = run_until_stopped(lambda stop: _demo(settings, script, rate, stay, stop))
            if keep is not None:
                (work / "outcome.json").write_text(board.as_json(), encoding="utf-8")
    finally:
        sys.stderr.write(held.getvalue())
    _print_outcome(desk, board, keep)
    raise typer.Exit(0 if board.complete and not desk.open else 1)


def _topics() -> dict[str, int]:
    from ..stage.demo_process import topics
    from .place import TOPIC

    one = dict.fromkeys(("murmura.models", "murmura.events", "murmura.experiments", "murmura.training"), 1)
    return topics(TOPIC) | one | {"murmura.reviews": 3}


def _publish_model(work: Path, bootstrap: str, http: str | None, device: str | None, *, quick: bool) -> "Settings":
    """Push the demo model to a store as version 1, release it, and return the settings of a serving process."""
    from datetime import UTC, datetime

    from ...runtime.model.folders.folder import read_manifest
    from ...runtime.release.states import publish_state
    from ...runtime.release.store import ModelStore
    from ...schemas.release import released
    from ..stage.demo_process import demo_settings
    from .place import MODEL, TOPIC

    name, where = read_manifest(MODEL).name, str(work / "store")
    store = ModelStore(where)
    version = store.push(MODEL)
    kafka = {"bootstrap_servers": bootstrap, "fetch_max_wait_ms": QUICK_FETCH_MS}
    settings = demo_settings(
        bootstrap,
        http,
        TOPIC,
        {"store": where, "name": name, "device": device, "trial_timeout_s": TRIAL_S},
        sections={"kafka": kafka} if quick else None,
    )
    state = released(
        None, name, version, store.digest(name, version), by="the demo", why="the first", at=datetime.now(UTC)
    )
    asyncio.run(publish_state(settings.kafka, f"{settings.prefix}.models", state))
    print(f"model: {name} {version}, put together with its base in the work folder", flush=True)
    return settings


def _script(work: Path, settings: "Settings", data: Path | None, *, quick: bool) -> "Script":
    from ..stage.exam import read_papers, read_rows
    from .job import write_job
    from .learn import QUICK_PACE, Script
    from .place import LEARN
    from .questions import NEW_PRODUCT, QUICK_PART, SOURCES

    if data is not None and not data.is_dir():
        raise SetupError(f"--data {data}: no such folder")
    corrections = read_rows(LEARN / "product-corrections.jsonl")
    job = write_job(work, settings.kafka.bootstrap_servers, str(settings.model.name), data, quick=quick)
    papers = read_papers(SOURCES)
    if not quick:
        return Script(papers, corrections, job)
    asked = [paper if paper.name == NEW_PRODUCT else paper.take_part(QUICK_PART) for paper in papers]
    return Script(asked, corrections, job, QUICK_PACE)


async def _demo(
    settings: "Settings", script: "Script", rate: float, stay: bool, stop: asyncio.Event
) -> "tuple[Desk, Board]":
    """Serve, send customers' messages, and run the story until its end, `stop`, or the end of serving."""
    from rich.console import Console

    from ...runtime.kafka.groupless_reader import open_reader
    from ..stage.board import Board
    from ..stage.demo_process import ANSWERING, ANSWERS, serving
    from ..stage.desk import Desk
    from ..stage.screen import Facts
    from ..stage.traffic import Customers, open_hours, read_samples
    from .learn import Story
    from .place import MESSAGES, TOPIC

    samples = _drop_broken(read_samples(MESSAGES))
    desk, board = Desk(frozenset(ANSWERING)), Board()
    events = {
        f"{settings.prefix}.training": board.read_training_event,
        f"{settings.prefix}.events": board.read_serving_event,
    }
    async with (
        serving(settings) as (started, server),
        open_reader(settings.kafka, [*ANSWERS, *events], from_beginning=True) as consumer,
        Customers(settings, desk, TOPIC) as customers,
    ):
        facts = Facts.from_model(started.engine.model, started.url)
        board.version = started.engine.model.manifest.version
        story = Story(script, desk, customers, board)
        async with _show(Console(), facts, board, desk, started, customers):
            running = asyncio.create_task(_run_story(story, stop, stay=stay))
            await open_hours(customers, consumer, samples, rate, stop, server, others=events, until=running)
    return desk, board


async def _run_story(story: "Story", stop: asyncio.Event, *, stay: bool) -> None:
    await story.run()
    if stay:
        await stop.wait()


def _drop_broken(samples: "list[Sample]") -> "list[Sample]":
    """Drop deliberately broken samples: the other demo shows dead letters."""
    from ..stage.traffic import text_sample

    return [sample for sample in samples if sample == text_sample(sample.text) and sample.text.strip()]


def _show(
    console: "Console", facts: "Facts", board: "Board", desk: "Desk", serving: "Serving", customers: "Customers"
) -> AbstractAsyncContextManager[None]:
    """Show the live screen on a terminal, else print a line for each change of a stage."""
    from ..stage.learn_screen import screen
    from ..stage.live import can_show, show_live
    from ..stage.person import Person

    if can_show(console):
        typed = Person(desk, customers, facts.tasks).types
        return show_live(console, desk, serving.metrics, partial(screen, facts, board, desk), typed)
    console.print(f"metrics {facts.url}/metrics, health {facts.url}/readyz", soft_wrap=True)
    _print_changes(board)
    return contextlib.nullcontext()


def _print_changes(board: "Board") -> None:
    """Print the start and the end of each stage, and details in between at times: training takes two minutes."""
    began = last = time.monotonic()

    def changed(stage: "Stage", step: "Step") -> None:
        nonlocal last
        last = time.monotonic()
        print(f"{last - began:5.0f} s  {step.state.value} {stage.value}: {step.detail}", flush=True)

    def detail_changed(stage: "Stage", step: "Step") -> None:
        if time.monotonic() - last >= DETAIL_EVERY_S:
            changed(stage, step)

    board.on_change, board.on_detail = changed, detail_changed


def _print_outcome(desk: "Desk", board: "Board", keep: Path | None) -> None:
    from ..stage.learn_screen import plain_lines

    print()
    for line in plain_lines(board):
        print(line)
    print()
    if board.failed:
        print(f"it did not come to its end: {board.failed}")
    if keep is not None:
        print(f"kept in {keep}: job.yaml, job.run/data/set, job.run/gate/gate.md, store, outcome.json")
    counts = f"published {desk.published}, answered {desk.answered}, dead-lettered {desk.dead_lettered}"
    print(f"{counts}, lost {desk.open}", flush=True)
