"""Creates the parts of a process and connects them, in the order of the start."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faststream.kafka import KafkaBroker

from ..schemas.release import GeneratedReplies
from .agent.agent import Agent
from .agent.handler import Context, Handler
from .agent.model_choice import assign_models
from .agent.routes import all_topics
from .batching.device.breaker import LONGEST_PAUSE_S, BreakerLimits
from .batching.engine import Engine
from .batching.versions import ServedModel
from .experiment_holder.assembling import make_holder
from .experiments.unit_assignment import RunningExperiment
from .flow.dispatcher import Dispatcher
from .flow.fetching.source import Source
from .flow.fetching.source_readings import watch_source
from .flow.fetching.stopping import StopClock
from .flow.retries.retrying import Retrying
from .kafka.broker import make_broker
from .kafka.broker_diagnosis import diagnose
from .kafka.changelog import read_to_end
from .kafka.dead_letter_depth import DeadLetterDepth
from .kafka.offset_tracker import Tracker
from .kafka.sending.publisher import Publisher
from .kafka.topics import require_topics
from .model.model import Model
from .observe.health import HealthApp, HealthState
from .observe.http_server import HttpServer
from .observe.logs import get_logger
from .observe.metrics import Metrics
from .observe.tracing import Tracing
from .output.alignment import Alignment, PartitionCounts
from .output.bounds import Bounds
from .output.dead_letter_gate import DeadLetterGate
from .output.device_watch import watch_device
from .output.reviews import Reviews
from .output.serving_events import ServingEvents, emit_pauses
from .output.suspending import Suspending
from .release.following import Loops, follow_releases
from .release.model_report import report_model
from .release.start_models import start_models
from .release.watcher import ReleaseWatcher
from .settings.settings import Settings
from .shadow.shadows import Shadows
from .wire.dead_letter import dead_letter

log = get_logger(__name__)

_WATCH_S = 1.0
AWAY_S = 5.0
"""Time without a successful fetch after which the broker counts as unavailable."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The parts of a started process that are passed to the caller."""

    url: str
    """URL of health and metrics."""
    engine: Engine
    """Its `model` is the serving one."""
    metrics: Metrics
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a process, connected but not running."""

    serving: Serving
    health: HealthState
    dispatcher: Dispatcher
    broker: KafkaBroker
    source: Source
    publisher: Publisher
    following: Loops
    """What follows the releases of the models; called when the process runs."""
    events: ServingEvents | None
    depth: DeadLetterDepth
    clock: StopClock

    async def release(self) -> None:
        """Drain and commit. FastStream calls this before it stops the consumer, which does not call the listener."""
        self.health.stopping = True
        await self.source.release(self.clock.begin())

    def loops(self, settings: Settings) -> list[Coroutine[Any, Any, None]]:
        """Return the coroutines that run until the process stops."""
        event_loops = [self.events.run(), emit_pauses(self.events, self.publisher.taking)] if self.events else []
        return [
            self.source.pump(),
            self.source.watch_logs(),
            self.source.commit_periodically(settings.commit_interval_ms / 1000),
            self.dispatcher.run(),
            self.dispatcher.suspending.run(),
            self.dispatcher.retrying.run(),
            _update_health(self.health, self.dispatcher, self.source, self.publisher),
            self.depth.run(),
            *(run() for run in self.following),
            *event_loops,
        ]


async def assemble(
    settings: Settings, everyone: Sequence[Agent | Handler], model: Model | None, stack: contextlib.AsyncExitStack
) -> Parts:
    """Create and start all parts except the consumer, in the order of their dependencies."""
    handlers = [agent for agent in everyone if isinstance(agent, Handler)]
    agents = [agent for agent in everyone if isinstance(agent, Agent)]
    if (tracing := Tracing.from_settings(settings)) is not None:
        stack.push_async_callback(tracing.stop)
    health = HealthState(overdue_s=settings.health.progress_overdue_s)
    metrics = Metrics()
    server = HttpServer(HealthApp(health, metrics.registry), settings.http_address)
    await server.start()
    stack.push_async_callback(server.stop)
    partitions = await _check_topics(settings, everyone)
    assigned = assign_models(settings, everyone)
    start_engine = partial(_start_engine, metrics, stack)
    models = await start_models(settings, everyone, assigned, start_engine, model)
    for each in models:
        report_model(health, metrics, each, each.engine.model)
    first, *others = models
    engine = first.engine
    routes = {topic: route for each in models for topic, route in each.routes.items()}
    clock = StopClock(settings.kafka.drain_s)
    publisher = await _start_publisher(settings, metrics, stack, clock)
    tracker: Tracker[TopicPartition] = Tracker()
    counts = PartitionCounts(
        partitions,
        lambda topic: readings.known_partitions(topic),  # noqa: PLW0108 - the consumer is created later
        publisher.known_partitions,
    )
    dispatcher = Dispatcher(
        engine,
        publisher,
        tracker,
        metrics,
        routes=first.routes,
        name=first.name,
        others=[ServedModel(each.engine, each.routes, each.name) for each in others],
        handler_models=assigned,
        dead_letters=settings.dead_letters,
        make_letter=partial(dead_letter, app=settings.app, spring_group=settings.spring_group),
        suspending=Suspending.from_settings(routes, handlers, settings),
        retrying=Retrying.from_settings(everyone, settings, partitions),
        gate=DeadLetterGate(
            settings.dead_letters, give_up_s=settings.deadletters.give_up_s, on_attempt=publisher.forget
        ),
        max_value_bytes=settings.limits.max_value_bytes,
        max_hops=settings.limits.max_hops,
        fields=settings.fields,
        queue_budgets=settings.queue_budgets,
        bounds=Bounds(
            settings.limits.max_partition_waiting_bytes,
            settings.limits.max_waiting_bytes,
            settings.limits.max_uncommitted,
        ),
        aligned=Alignment(agents, counts).aligned_pairs,
        handlers=handlers,
        reviews=Reviews.from_settings(settings),
        tracing=tracing,
    )
    dispatcher.suspending.on_probe = publisher.forget
    publisher.declared_topics = frozenset(
        (
            *dispatcher.suspending.declared_topics,
            *dispatcher.retrying.topics,
            settings.dead_letters,
            f"{settings.prefix}.reviews",
        )
    )
    topics = (*routes, *(topic for handler in handlers for topic in handler.topics))
    broker = make_broker(settings.kafka)
    source = Source(
        broker,
        (*topics, *dispatcher.retrying.topics),
        dispatcher,
        tracker,
        metrics,
        health,
        settings.kafka,
        group=settings.group,
        give_up_s=settings.health.give_up_s,
    )
    await _prepare_starts(source, partitions, topics, settings)
    readings = source.make_readings(retries=dispatcher.retrying.topics)
    names, restore = tuple(agent.name for agent in everyone), partial(read_to_end, settings.kafka)
    watchers: dict[str, ReleaseWatcher] = {}
    for handler in handlers:
        own = next(each for each in models if each.name == assigned[handler.name])
        handler.started(
            Context(
                settings,
                metrics,
                own.engine,
                names,
                counts,
                restore,
                tuple(agents),
                partial(_find_generated_replies, watchers, own.name),
                partial(_find_experiment, watchers, own.name),
            )
        )
    watch_source(metrics, readings, tracker, topics, dispatcher.retrying)
    depth = DeadLetterDepth(settings.kafka, settings.dead_letters, partitions[settings.dead_letters])
    metrics.watch(letters=depth.records, letters_age=depth.age_s)
    events = _make_events(settings, partitions, stack, clock)
    watch_device(engine, health, metrics, events, dispatcher.outbox.fail)
    shadows = _make_shadows(settings, metrics, stack, clock)
    following: Loops = [shadows.run]
    if events is not None:
        for each, served in zip(models, dispatcher.served, strict=True):
            if each.loader is not None:
                watchers[served.name], loops = follow_releases(
                    each, each.loader, served, health, metrics, events, shadows.shared
                )
                following += loops
        named = {each.name: each.settings.model.name for each in models if each.loader is not None}
        asked = {agent: name for agent, model in assigned.items() if (name := named.get(model)) is not None}
        holder = make_holder(settings, everyone, asked, partitions, events, metrics) if asked else None
        following += [holder.run] if holder is not None else []
    serving = Serving(server.url, engine, metrics, topics)
    return Parts(serving, health, dispatcher, broker, source, publisher, following, events, depth, clock)


def _find_generated_replies(watchers: Mapping[str, ReleaseWatcher], name: str) -> GeneratedReplies:
    return watchers[name].generated_replies if name in watchers else GeneratedReplies()


def _find_experiment(watchers: Mapping[str, ReleaseWatcher], name: str) -> RunningExperiment | None:
    return watchers[name].experiment if name in watchers else None


async def _prepare_starts(
    source: Source, partitions: dict[str, int], topics: Sequence[str], settings: Settings
) -> None:
    try:
        await source.starts.prepare(partitions, topics)
    except (KafkaError, OSError, TimeoutError) as error:
        raise await diagnose(settings.kafka, error) from error


async def _update_health(health: HealthState, dispatcher: Dispatcher, source: Source, publisher: Publisher) -> None:
    while True:
        source.watch()
        now = time.monotonic()
        health.set_work(dispatcher.has_work, now)
        health.note_progress(dispatcher.outbox.last_progress)
        health.suspended = dispatcher.suspending.describe()
        health.dead_letter_trouble = dispatcher.outbox.gate.trouble
        health.send_trouble = publisher.trouble
        if health.unfetched_s > AWAY_S or not publisher.taking.is_set():
            health.last_away = now
        await asyncio.sleep(_WATCH_S)


async def _check_topics(settings: Settings, agents: Sequence[Agent | Handler]) -> dict[str, int]:
    inputs, outputs = all_topics(agents, settings.dead_letters)
    if settings.has_store:
        outputs = (*outputs, f"{settings.prefix}.models", f"{settings.prefix}.events")
    if settings.reviews.are_sent:
        outputs = (*outputs, f"{settings.prefix}.reviews")
    advice = "make it, or let `murmura topics --create` do so, with the same agents named as here"
    return await require_topics(settings.kafka, (*inputs, *outputs), advice)


def _make_events(
    settings: Settings, partitions: dict[str, int], stack: contextlib.AsyncExitStack, clock: StopClock
) -> ServingEvents | None:
    """Return the publisher of this process's events; None without a topic for them. With a store there is one."""
    topic = f"{settings.prefix}.events"
    if topic not in partitions:
        return None
    events = ServingEvents(settings.app, topic, partial(Publisher.from_settings, settings))
    stack.push_async_callback(clock.finish, "the events of this process", events.stop)
    return events


def _make_shadows(settings: Settings, metrics: Metrics, stack: contextlib.AsyncExitStack, clock: StopClock) -> Shadows:
    shadows = Shadows(settings, metrics, partial(Publisher.from_settings, settings))
    stack.push_async_callback(clock.finish, "what is only compared", shadows.stop)
    return shadows


async def _start_engine(
    metrics: Metrics,
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    model: Model,
    name: str,
    beside: Engine | None,
) -> Engine:
    limits = settings.model
    engine = Engine(
        model,
        max_in_flight=limits.cores if model.device == "cpu" else None,
        max_rows=limits.max_rows,
        token_budget=limits.token_budget,
        max_wait_ms=limits.max_wait_ms,
        max_hold_ms=limits.max_hold_ms,
        padded=limits.graph == "padded",
        reply_rows=limits.reply_rows,
        steps_between_passes=limits.steps_between_passes,
        observer=metrics,
        shortest_deadline_s=limits.run_deadline_s,
        breaker=BreakerLimits(first_pause_s=min(limits.probe_pause_s, LONGEST_PAUSE_S), give_up_s=limits.give_up_s),
        name=name,
        weight=settings.weight(name),
        beside=beside,
    )
    await engine.start()
    stack.push_async_callback(engine.stop, 1.0)
    return engine


async def _start_publisher(
    settings: Settings, metrics: Metrics, stack: contextlib.AsyncExitStack, clock: StopClock
) -> Publisher:
    publisher = Publisher.from_settings(settings, metrics.send_retry)
    try:
        await publisher.start()
    except (KafkaError, OSError) as error:
        raise await diagnose(settings.kafka, error) from error
    stack.push_async_callback(clock.finish, "the producer", publisher.stop)
    return publisher
