"""Replaces the serving model while records are being answered."""

import asyncio
import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from ..agent.agent import Agent
from ..agent.routes import Route, make_routes
from ..batching.engine import Engine
from ..model.model import Model
from ..observe.logs import get_logger
from ..settings.settings import Settings

log = get_logger(__name__)


class Reroutable(Protocol):
    """Uses the routes of the serving model."""

    def reroute(self, routes: dict[str, Route]) -> None: ...


class ModelSlot:
    """Owns the serving model.

    Invariants:
    - new texts always go to exactly one model;
    - a text is answered by the model that encoded it, so a batch never mixes versions, and the old model is freed when
      its last batch has ended;
    - a model that fails a check changes nothing.
    """

    def __init__(
        self,
        settings: Settings,
        agents: Sequence[Agent],
        engine: Engine,
        dispatcher: Reroutable,
    ) -> None:
        self._settings = settings
        self._agents = agents
        self._engine = engine
        self._dispatcher = dispatcher
        self.on_swap: Callable[[Model], None] = lambda model: None

    @property
    def model(self) -> Model:
        model: Model = self._engine.model
        return model

    def put(self, model: Model) -> None:
        """Serve a model from the next encoded chunk on. Without an await, so engine and dispatcher change together."""
        routes = make_routes(self._agents, model.manifest, self._settings.app)
        if model.device != self.model.device:
            # The token budget and the runs in flight were measured for the other device; a restart measures again.
            log.warning("the new model runs on another device", device=model.device, before=self.model.device)
        self._engine.swap(model, model.token_s)
        self._dispatcher.reroute(routes)
        self.on_swap(model)


async def release_memory() -> None:
    """Ask the C library to return freed memory to the system: glibc would keep that of the old model's weights."""
    with suppress(OSError, AttributeError):
        await asyncio.to_thread(ctypes.CDLL(None).malloc_trim, 0)
