"""The model that serves, and how another one takes its place while records go on being answered."""

import asyncio
import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .agent import Agent
from .calibration import warm_up
from .engine import Engine
from .errors import ModelFailed, ModelRefused, SetupError, VersionRefused
from .logs import get_logger
from .model import Model
from .model_store import ModelStore
from .proving import prove
from .releases import read_states
from .routes import Route, make_routes
from .settings import Settings
from .store import cache_folder, resolve

log = get_logger(__name__)


class Rerouted(Protocol):
    """Who has to know of another model's tasks and thresholds."""

    def reroute(self, routes: dict[str, Route]) -> None: ...


class Loader:
    """From a release to a model that may serve: fetched, checked, tried in a child process, loaded, warmed up, proven."""

    def __init__(self, settings: Settings, store: ModelStore, agents: Sequence[Agent]) -> None:
        self._settings = settings
        self._store = store
        self._agents = agents

    def load(self, name: str, version: int, digest: str, *, needed: frozenset[str] = frozenset()) -> Model:
        """Return the model of a version; VersionRefused with the reason when it must not serve. Blocks for seconds.

        `needed` are the tasks that running agents answer: a version without one of them is refused.
        """
        of = self._settings.model
        fetched = self._store.fetch(name, version, digest, cache_folder() / "versions")
        folder = self._servable(fetched)
        prove(folder, of.graph)
        try:
            model = Model.load(folder, device=of.device, graph=of.graph)
            warm_up(model, max_rows=of.max_rows)
        except ModelFailed as error:
            raise VersionRefused("wrong_shape", f"{name} {version}: {error}") from error
        if (manifest := model.manifest).name != name:
            raise VersionRefused("not_a_model", f"{name} {version}: its manifest says {manifest.name}")
        self._check_tasks(model, needed)
        return model

    def _servable(self, folder: Path) -> Path:
        try:
            return resolve(folder)
        except ModelRefused:
            raise
        except SetupError as error:
            raise VersionRefused("no_base", str(error)) from error

    def _check_tasks(self, model: Model, needed: frozenset[str]) -> None:
        manifest = model.manifest
        missing = sorted(needed - {task.name for task in manifest.tasks})
        if missing:
            raise VersionRefused("lacks_task", f"{manifest.name} {manifest.version} has no task {', '.join(missing)}")
        try:
            make_routes(self._agents, manifest, self._settings.app)
        except SetupError as error:
            raise VersionRefused("lacks_task", str(error)) from error


@dataclass(frozen=True, slots=True)
class FirstModel:
    """What a process begins with."""

    model: Model
    generation: int = 0
    """Of the release that serves, 0 when it came from the settings' folder."""


async def first_model(settings: Settings, loader: Loader | None) -> FirstModel:
    """Return the model that a new process serves: the released one where the topic knows it, else the folder's.

    A release that is refused leaves the folder's model, if there is one: `ReleaseWatcher` then tells everybody.
    """
    of = settings.model
    if loader is not None:
        name = of.name or ""
        state = (await read_states(settings.kafka, f"{settings.prefix}.models")).get(name)
        if state is not None:
            try:
                model = await asyncio.to_thread(loader.load, name, state.current.version, state.current.digest)
                return FirstModel(model, state.generation)
            except ModelRefused as error:
                if of.folder is None:
                    raise
                log.error("the released version is refused, the folder's model serves", why=str(error))
    if of.folder is None:
        raise SetupError(
            f"model {of.name} has no release on {settings.kafka.bootstrap_servers}: release one, or name a folder"
            if loader is not None
            else "no model: name a model folder with --model, MURMURA_MODEL__FOLDER or model.folder"
        )
    return FirstModel(await asyncio.to_thread(_load_folder, settings, of.folder))


def _load_folder(settings: Settings, folder: Path) -> Model:
    return Model.load(resolve(folder), device=settings.model.device, graph=settings.model.graph)


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
        *,
        of_handlers: frozenset[str] = frozenset(),
    ) -> None:
        """`of_handlers` are the tasks that handlers cannot do without."""
        self._settings = settings
        self._of_handlers = of_handlers
        self._agents = agents
        self._engine = engine
        self._dispatcher = dispatcher
        self.on_swap: Callable[[Model], None] = lambda model: None

    @property
    def model(self) -> Model:
        model: Model = self._engine.model
        return model

    def answered_tasks(self) -> frozenset[str]:
        """Return the tasks that agents answer with the model that serves."""
        routes = make_routes(self._agents, self.model.manifest, self._settings.app)
        return self._of_handlers.union(task for route in routes.values() for task in route.tasks)

    def put(self, model: Model) -> None:
        """Let a model serve from the next encoded chunk on. Nothing is awaited: both sides change between two steps."""
        routes = make_routes(self._agents, model.manifest, self._settings.app)
        self._engine.swap(model)
        self._dispatcher.reroute(routes)
        self.on_swap(model)


async def give_memory_back() -> None:
    """Ask the C library to return what the old model's weights took: glibc keeps freed memory to itself otherwise."""
    with suppress(OSError, AttributeError):
        await asyncio.to_thread(ctypes.CDLL(None).malloc_trim, 0)
