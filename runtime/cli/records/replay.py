"""`murmura replay`."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from ...errors import SetupError
from .. import options
from . import ranges

if TYPE_CHECKING:
    import asyncio

    from ...agent.agent import Agent
    from ...kafka.offset_ranges import OffsetRange
    from ...model.model import Model
    from ...settings.settings import Settings
    from ...testing.replay import Replay, Replayed
    from ...testing.replay_comparison import Comparison
    from ...testing.replay_versions import AnswerCounts
    from ...wire.message import Message

_CLOCKS_S = 3600.0
"""Seconds before the earliest replayed record from which published results are searched: senders' clocks differ."""


def replay(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="Topic of requests, for example murmura.analysis.requests.")
    ],
    agents: options.Agents = None,
    model: options.Model = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="NAME/VERSION", help="A version in the store of the settings.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="TOPIC|FILE", help="Target of results: a topic, or a file with a / or .jsonl."),
    ] = None,
    since: ranges.Since = None,
    until: ranges.Until = None,
    offsets: ranges.Offsets = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="TOPIC|FOLDER|NAME/VERSION",
            help="Compare with the results in this topic, or with another model: a folder with a /, or a version in the store. "
            "Default: the topic of the agents.",
        ),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Show the texts whose answers changed.")] = False,
    reviews: Annotated[
        int,
        typer.Option(
            "--reviews",
            metavar="NUMBER",
            min=0,
            max=10_000,
            help="Ask people about so many of the published answers that differ, drawn at random.",
        ),
    ] = 0,
    device: options.Device = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Answer the records of a topic with another model, and compare the answers with the published ones.

    Joins no group, commits no offsets, and publishes nothing but results, with --to, and requests for review, with --reviews. Results are those that serving
    would publish. They are joined with the published results by prediction id: agreement by task, changed labels, and
    the coordinates of changed answers. With a model behind --against both answer the same records, and what each withheld
    is shown, too.

    Example: [bold]murmura replay murmura.analysis.requests analysis --model models/desk-2 --since 24h[/bold]

    Two versions: [bold]murmura replay murmura.analysis.requests --version desk/7 --against desk/6 --since 24h[/bold]

    To a file: [bold]murmura replay murmura.analysis.requests analysis --version desk/7 --to new.jsonl[/bold]
    """
    import tempfile

    from ...testing.replay_comparison import Comparison
    from ...testing.replay_reviews import DisagreementSample, publish_reviews
    from ...testing.replay_versions import AnswerCounts
    from ..until_signalled import run_cancellable, run_until_stopped

    if reviews and against is not None and "/" in against:
        raise SetupError("--reviews asks about published answers: leave --against out, or name a topic of results")
    if (version is None) == (model is None):
        raise SetupError("give either --model FOLDER or --version NAME/VERSION")

    def read_settings(folder: Path | None, version: str | None) -> "Settings":
        read = options.settings(config, bootstrap=bootstrap, model=folder, device=device)
        return read if version is None else read.for_model(version.rpartition("/")[0])

    settings = read_settings(model, version)
    limits = (ranges.read_time("--since", since), ranges.read_time("--until", until), ranges.read_offsets(offsets))
    replaying, other = _prepare(settings, topic, agents or [], version), None
    if against is not None and "/" in against:
        other_folder = Path(against) if Path(against).is_dir() else None
        other_version = None if other_folder else against
        read = read_settings(other_folder, other_version)
        other = _prepare(read, topic, agents or [], other_version, "--against")
    with tempfile.TemporaryDirectory(prefix="murmura-replay-") as folder:
        sample = DisagreementSample(reviews)
        comparison = Comparison(Path(folder) / "results.sqlite", sample)

        async def main(stop: "asyncio.Event") -> "Replayed":
            chosen = await _choose(settings, topic, limits)
            done = await _replay(settings, replaying, chosen, to, [comparison.add, *adding[:1]], stop)
            if other is None:
                await _join(settings, list(replaying.outputs) if against is None else [against], done, comparison)
            else:
                await _replay(settings, other, chosen, None, [comparison.join, *adding[1:]], stop)
            return done

        counts = [AnswerCounts(each.name) for each in (replaying, other) if each is not None]
        adding = [each.add for each in counts]
        done = run_until_stopped(main)
        comparison.finish()
    for line in _report(done, comparison, counts):
        typer.echo(line)
    if text:
        _show_texts(settings, comparison)
    if reviews:
        sent = run_cancellable(lambda stop: publish_reviews(settings, sample))
        typer.echo(f"published {sent:,} reviews to {settings.prefix}.reviews, with the reason disagreement")


def _prepare(
    settings: "Settings", topic: str, names: list[str], version: str | None, option: str = "--version"
) -> "Replay":
    from ...agent.agent import Agent
    from ...agent.discovery import find_agents
    from ...agent.routes import configure_agents
    from ...testing.replay import Replay

    plain = [
        agent for agent in configure_agents(settings, find_agents(names, settings.prefix)) if isinstance(agent, Agent)
    ]
    if not any(topic in agent.topics for agent in plain):
        known = ", ".join(agent.name for agent in plain) or "none"
        raise SetupError(
            f"none of the agents ({known}) reads {topic} and predicts: name those to ask behind the topic, for example MODULE:ATTRIBUTE"
        )
    return Replay(settings, plain, _model(settings, plain, version, option), topic)


def _model(settings: "Settings", agents: "Sequence[Agent]", version: str | None, option: str) -> "Model":
    from ...model.deltas.assembled import resolve
    from ...model.model import Model
    from ...release.staging import Loader
    from ...release.store import ModelStore

    if version is None:
        assert settings.model.folder is not None
        return Model.load(resolve(settings.model.folder), device=settings.model.device, graph=settings.model.graph)
    name, _, number = version.rpartition("/")
    if not name or not number.isascii() or not number.isdigit():
        raise SetupError(
            f"{option}: expected NAME/VERSION{'' if option == '--version' else ', a topic or a folder'}, found {version!r}"
        )
    if settings.model.store is None:
        raise SetupError(
            f"{option} needs the model store: set model.store and model.name, or models.NAME.store, in the settings"
        )
    store = ModelStore(settings.model.store)
    return Loader(settings, store, agents).load(name, int(number), store.digest(name, int(number)))


async def _choose(
    settings: "Settings", topic: str, limits: tuple[float | None, float | None, dict[int, tuple[int, int]]]
) -> "list[OffsetRange]":
    from ...kafka import offset_ranges

    chosen = await offset_ranges.freeze(settings.kafka, [[topic]])
    if limits[0] is not None or limits[1] is not None:
        chosen = await offset_ranges.narrow(settings.kafka, chosen, limits[0], limits[1])
    return _narrow(chosen, limits[2])


async def _replay(
    settings: "Settings",
    replaying: "Replay",
    chosen: "list[OffsetRange]",
    to: str | None,
    adding: "Sequence[Callable[[bytes | None], None]]",
    stop: "asyncio.Event",
) -> "Replayed":
    """Answer the records of ranges; each result goes to the target and to all of `adding`."""
    from .progress import progress_bar

    async with AsyncExitStack() as stack:
        write = await _open_target(settings, replaying, to, stack)
        with progress_bar("answered") as bar:
            bar.begin(sum(each.records for each in chosen))

            async def keep(results: "Sequence[Message]") -> None:
                for result in results:
                    for add in adding:
                        add(result.value)
                await write(results)
                bar.count(len(results))

            return await replaying.run(chosen, keep, stop=stop, progress=bar.advance)


def _narrow(chosen: "list[OffsetRange]", offsets: dict[int, tuple[int, int]]) -> "list[OffsetRange]":
    if not offsets:
        return chosen
    narrowed = []
    for each in chosen:
        start, end = offsets.get(each.partition, (each.start, each.start))
        start = min(max(start, each.start), each.end)
        narrowed.append(each._replace(start=start, end=max(min(end, each.end), start)))
    return narrowed


async def _open_target(
    settings: "Settings", replaying: "Replay", to: str | None, stack: AsyncExitStack
) -> "Callable[[Sequence[Message]], Awaitable[None]]":
    """Return a writer of results: to nowhere, a file, or a topic. Raises SetupError when it cannot be written."""
    if to is None:
        return _drop
    if "/" in to or to.endswith((".jsonl", ".json")):
        file = stack.enter_context(_open_output(to))

        async def write(results: "Sequence[Message]") -> None:
            file.writelines((result.value or b"null") + b"\n" for result in results)

        return write
    return await _open_topic(settings, replaying, to, stack)


def _open_output(file: str) -> BinaryIO:
    try:
        return Path(file).open("wb")
    except OSError as error:
        raise SetupError(f"--to {file}: {(error.strerror or str(error)).lower()}") from None


async def _drop(results: "Sequence[Message]") -> None:
    return


async def _open_topic(
    settings: "Settings", replaying: "Replay", to: str, stack: AsyncExitStack
) -> "Callable[[Sequence[Message]], Awaitable[None]]":
    from ...kafka.sending.producer import producer_factory
    from ...kafka.sending.publisher import Publisher
    from ...kafka.topics import require_topics

    used = {topic for agent in replaying.agents for topic in (*agent.topics, *agent.outputs)}
    if to in used:
        raise SetupError(f"--to {to}: serving reads or writes that topic; give results of a replay one of their own")
    await require_topics(settings.kafka, [to], "make it first")
    publisher = Publisher(producer_factory(settings.kafka, settings.producer))
    await publisher.start()
    stack.push_async_callback(publisher.stop)

    async def publish(results: "Sequence[Message]") -> None:
        refused = await publisher.publish([result._replace(topic=to, partition=None) for result in results])
        if error := next((refusal for refusal in refused if refusal is not None), None):
            raise SetupError(f"--to {to}: {error}")

    return publish


async def _join(settings: "Settings", topics: list[str], done: "Replayed", comparison: "Comparison") -> None:
    from ...kafka import offset_ranges
    from ...kafka.topics import fetch_partition_counts

    existing = await fetch_partition_counts(settings.kafka)
    published = [topic for topic in topics if topic in existing]
    if not done.results or not published:
        return
    chosen = await offset_ranges.freeze(settings.kafka, [published])
    if done.earliest_ms > 0:
        chosen = await offset_ranges.narrow(settings.kafka, chosen, done.earliest_ms / 1000 - _CLOCKS_S, None)

    def take(number: int, records: list[Any]) -> None:
        for record in records:
            comparison.join(record.value)

    await offset_ranges.read(settings.kafka, chosen, take)


def _report(done: "Replayed", comparison: "Comparison", counts: "Sequence[AnswerCounts]") -> list[str]:
    from ...testing.replay_versions import compare_versions

    lines = [f"{done.records:,} records: {done.results:,} results, {done.dead_letters:,} would be dead letters"]
    if done.handed_on or done.unreadable:
        lines.append(f"{done.handed_on:,} records would be handed on, {done.unreadable:,} could not be read")
    if len(counts) > 1:
        lines += compare_versions(comparison, old=counts[1], new=counts[0])
        return [*lines, *_report_changes(comparison)]
    lines.append(f"{comparison.joined:,} results were published before, {comparison.only_replayed:,} were not")
    if comparison.expired:
        lines.append(f"{comparison.expired:,} of them were published as expired: nothing was predicted then")
    for task, compared in comparison.compared.items():
        agreed = comparison.agreed[task]
        lines.append(f"  {task}: {agreed:,} of {compared:,} agree ({100 * agreed / compared:.1f} %)")
    return [*lines, *_report_changes(comparison)]


def _report_changes(comparison: "Comparison") -> list[str]:
    pairs = comparison.pairs.most_common(20)
    lines = [f"  {times:,} x {task}: {before} -> {after}" for (task, before, after), times in pairs]
    return [*lines, *(f"  changed: {place} {task}" for place, task in comparison.changed)]


def _show_texts(settings: "Settings", comparison: "Comparison") -> None:
    from ...kafka import offset_ranges
    from ...kafka.offset_ranges import OffsetRange
    from ...redrive.set_aside import read_place
    from ...wire.summary import safe
    from ..until_signalled import run_cancellable

    def take(number: int, records: list[Any]) -> None:
        for record in records:
            value = safe((record.value or b"").decode(errors="replace"))
            typer.echo(f"{record.topic}/{record.partition}/{record.offset}  {value}")

    async def main(stop: "asyncio.Event") -> None:
        for place in dict.fromkeys(place for place, _ in comparison.changed):
            coordinates = read_place(place)
            await offset_ranges.read(
                settings.kafka,
                [OffsetRange(coordinates.topic, coordinates.partition, coordinates.offset, coordinates.offset + 1)],
                take,
            )

    run_cancellable(main)
