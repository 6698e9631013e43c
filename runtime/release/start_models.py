"""Loads the models of a new process, one after another, and starts an engine for each on the device that they share."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from ..agent.agent import Agent
from ..agent.handler import Handler
from ..agent.routes import Route, check_handlers, make_routes, prepare_handlers
from ..batching.engine import Engine
from ..model.memory import Graph, find_free_bytes, find_needed_bytes
from ..model.model import Model
from ..observe.logs import get_logger
from ..settings.settings import Settings
from .first_model import StartState, first_model
from .staging import Loader
from .store import ModelStore

log = get_logger(__name__)

StartEngine = Callable[[Settings, Model, str, Engine | None], Awaitable[Engine]]


class StartedModel(NamedTuple):
    """A model that serves, with the agents that ask it. The model itself is the engine's: it must be free once it is replaced."""

    name: str
    settings: Settings
    """With this model's own in `model`."""
    engine: Engine
    routes: Mapping[str, Route]
    agents: Sequence[Agent]
    loader: Loader | None
    """None where no releases are followed."""
    start: StartState


async def start_models(
    settings: Settings,
    everyone: Sequence[Agent | Handler],
    assigned: Mapping[str, str],
    start_engine: StartEngine,
    given: Model | None = None,
) -> list[StartedModel]:
    """Load every model and start its engine. `assigned`: the model of each agent. `given` serves instead of a single one.

    Raises SetupError for a model that cannot be loaded, does not fit into memory, or lacks tasks of its agents.
    """
    started: list[StartedModel] = []
    for name in settings.model_names:
        own = settings.for_model(name)
        asking = [agent for agent in everyone if assigned[agent.name] == name]
        agents = [agent for agent in asking if isinstance(agent, Agent)]
        handlers = [agent for agent in asking if isinstance(agent, Handler)]
        loader = None if own.model.store is None else Loader(own, ModelStore(own.model.store), agents, handlers)
        model, start = (given, StartState()) if given is not None else await first_model(own, loader)
        routes = make_routes(agents, model.manifest, settings.app)
        check_handlers(handlers, model.manifest)
        await asyncio.to_thread(prepare_handlers, handlers, model)
        engine = await start_engine(own, model, name, started[0].engine if started else None)
        if loader is not None:
            loader.turn = engine.turn
        started.append(StartedModel(name, own, engine, routes, agents, loader, start))
        _report_memory(model, name, own.model.graph)
    return started


def _report_memory(model: Model, name: str, graph: Graph) -> None:
    free = find_free_bytes()
    needed_mb, free_mb = find_needed_bytes(model.manifest, graph) / 1e6, None if free is None else round(free / 1e6)
    log.info("memory of a model", model=name or model.manifest.name, graphs_mb=round(needed_mb, 1), free_mb=free_mb)
