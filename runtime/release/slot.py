"""The model that serves, and how another one takes its place while records go on being answered."""

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


class Rerouted(Protocol):
    """Who has to know of another model's tasks and thresholds."""

    def reroute(self, routes: dict[str, Route]) -> None: ...


class ModelSlot:
    """Owns which model serves.

    Invariants:
    - there is always exactly one model that new texts go to;
    - a text is answered by the model that encoded it, so a batch never mixes versions, and the old model is freed when
      its last batch has ended;
    - what does not pass every check changes nothing.
    """

    def __init__(
        self,
        settings: Settings,
        agents: Sequence[Agent],
        engine: Engine,
        dispatcher: Rerouted,
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
        """Let a model serve from the next encoded chunk on. Nothing is awaited: both sides change between two steps."""
        routes = make_routes(self._agents, model.manifest, self._settings.app)
        if model.device != self.model.device:
            # The token budget and the runs in flight were measured for the other one; a restart measures anew.
            log.warning("the new model runs on another device", device=model.device, before=self.model.device)
        self._engine.swap(model)
        self._dispatcher.reroute(routes)
        self.on_swap(model)


async def give_memory_back() -> None:
    """Ask the C library to return what the old model's weights took: glibc keeps freed memory to itself otherwise."""
    with suppress(OSError, AttributeError):
        await asyncio.to_thread(ctypes.CDLL(None).malloc_trim, 0)
