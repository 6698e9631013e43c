"""Runs a serving process: starts its parts, runs them until `stop`, and shuts them down in order."""

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from aiokafka.errors import KafkaError
from faststream.asgi import AsgiFastStream

from .agent.agent import Agent
from .agent.handler import Handler
from .agent.routes import configure_agents
from .assembly import Serving, assemble
from .errors import Closed
from .kafka.broker_diagnosis import diagnose
from .model.model import Model
from .model.onnx_session import check_installation
from .observe.logs import get_logger
from .settings.settings import Settings

__all__ = ["Serving", "serve"]

log = get_logger(__name__)


async def serve(
    settings: Settings,
    agents: Sequence[Agent | Handler],
    *,
    stop: asyncio.Event,
    ready: Callable[[Serving], None] = lambda serving: None,
    model: Model | None = None,
) -> None:
    """Answer records until `stop` is set, then finish the work in progress, commit and leave the group.

    `ready` is called once, when the consumer has started. `model` replaces the one of the settings. Raises SetupError for
    problems before that, later the error that ended the process.
    """
    everyone = configure_agents(settings, agents)
    if model is None:
        check_installation()
    async with contextlib.AsyncExitStack() as stack:
        parts = await assemble(settings, everyone, model, stack)
        app = AsgiFastStream(parts.broker, logger=None, on_shutdown=[parts.release])
        await _start_app(app, settings)
        try:
            _freeze_objects()
            ready(parts.serving)
            log.info(
                "serving",
                topics=list(parts.serving.topics),
                agents=[agent.name for agent in everyone],
                http=parts.serving.url,
            )
            await _run_until(
                stop,
                parts.dispatcher.outbox.failure,
                *parts.loops(settings),
                before_end=partial(parts.clock.finish, "the consumer", app.stop),
            )
        finally:
            if not parts.health.stopping:
                await parts.clock.finish("the consumer", app.stop)
    log.info("stopped")


async def _run_until(
    stop: asyncio.Event,
    failure: asyncio.Future[None],
    *loops: Coroutine[Any, Any, None],
    before_end: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Run the loops until `stop` or the first failure, which is raised. The loops continue during `before_end`."""
    tasks: list[asyncio.Future[None]] = [asyncio.create_task(loop) for loop in loops]
    waiter: asyncio.Future[Any] = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([*tasks, waiter, failure], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in (*tasks, failure) if task.done() and not task.cancelled() and task.exception()]
        await before_end()
        if failed:
            raise failed[0].exception() or Closed("a part of the process ended")
        if not stop.is_set():
            raise Closed("the consumer stopped by itself; start the process again")
    finally:
        for task in (*tasks, waiter):
            task.cancel()
        await asyncio.gather(*tasks, waiter, return_exceptions=True)


async def _start_app(app: AsgiFastStream, settings: Settings) -> None:
    try:
        await app.start()
    except (KafkaError, OSError) as error:
        with contextlib.suppress(Exception):
            await app.stop()
        raise await diagnose(settings.kafka, error) from error


def _freeze_objects() -> None:
    """Exclude loaded objects from garbage collection, which would otherwise cost 2 to 4 us per record."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
