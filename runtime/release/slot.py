"""Replaces the serving model while records are being answered."""

import asyncio
import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from ..agent.agent import Agent
from ..agent.routes import Route, make_routes
from ..batching.engine import Engine
from ..batching.versions import LoadedVersion, Versions
from ..errors import DeviceFailed
from ..experiments.unit_assignment import Assignment
from ..model.model import Model
from ..observe.logs import get_logger
from ..settings.settings import Settings
from ..shadow.shadow import OnFailed, Shadow
from ..shadow.shared import Shared

log = get_logger(__name__)


class Reroutable(Protocol):
    """Uses the loaded versions and the routes of the serving one."""

    @property
    def versions(self) -> Versions: ...
    def reroute(self, routes: dict[str, Route]) -> None: ...


class ModelSlot:
    """Owns the loaded versions of one model: the current one, and perhaps a candidate beside it.

    Invariants:
    - each record goes to exactly one version for all its agents, which the side of its unit decides;
    - whatever becomes of a candidate, the current version goes on, and answers what the candidate does not;
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
        shadows: Shared | None = None,
    ) -> None:
        """`shadows`: what a version that is only compared shares with those of other models."""
        self._settings = settings
        self._agents = agents
        self._engine = engine
        self._dispatcher = dispatcher
        self._shadows = shadows
        self._shadow: Shadow | None = None
        self.on_swap: Callable[[Model], None] = lambda model: None
        self.on_candidate: Callable[[Model | None, Assignment | None], None] = lambda model, assignment: None
        """Called with the candidate that is loaded now, or None, and its assignment."""

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
        candidate = self._dispatcher.versions.candidate
        if candidate is not None and candidate.model is model:
            self._dispatcher.versions.drop_candidate()
            self.on_candidate(None, None)
        if self._shadow is not None and self._shadow.model is model:
            self.drop_shadow()
        self._engine.swap(model, model.pass_time)
        self._dispatcher.reroute(routes)
        self.on_swap(model)

    def put_candidate(self, model: Model, assignment: Assignment, on_failed: Callable[[DeviceFailed], None]) -> None:
        """Let a second version answer its side of an experiment from the next encoded chunk on.

        `on_failed` is called when it has failed: it is dropped, and the current version answers. Raises SetupError for a model
        that an agent cannot work with, and ValueError while there is a candidate.
        """
        routes = make_routes(self._agents, model.manifest, self._settings.app, variant="candidate")

        def fail(fault: DeviceFailed) -> None:
            self._dispatcher.versions.drop_candidate()
            self.on_candidate(None, None)
            on_failed(fault)

        self._engine.load_candidate(model, model.pass_time, fail)
        self._dispatcher.versions.add_candidate(LoadedVersion(model, routes), assignment)
        self.on_candidate(model, assignment)

    def assign(self, assignment: Assignment) -> None:
        """Divide the units between the loaded versions otherwise from the next encoded chunk on: the share was raised."""
        if self._dispatcher.versions.candidate is not None:
            self._dispatcher.versions.assignment = assignment
            self.on_candidate(self._dispatcher.versions.candidate.model, assignment)

    def drop_candidate(self) -> None:
        """Let the current version answer everything from the next encoded chunk on."""
        self._dispatcher.versions.drop_candidate()
        self._engine.drop_candidate()
        self.on_candidate(None, None)

    def put_shadow(self, model: Model, share: float, on_failed: OnFailed) -> None:
        """Compare a second version on a share of the requests while the device is idle; it answers none.

        `on_failed` is called once when it has failed: it is dropped. Raises SetupError for a model that an agent cannot work
        with, and ValueError while there is one.
        """
        if self._shadows is None:
            raise ValueError("nothing is compared in this process")
        if self._shadow is not None:
            raise ValueError("a version is compared already: drop it first")
        routes = make_routes(self._agents, model.manifest, self._settings.app, variant="candidate")

        def fail(fault: DeviceFailed) -> None:
            self.drop_shadow()
            on_failed(fault)

        terms = self._engine.estimate_terms(model)
        self._shadow = Shadow(model, share, routes, terms, self._engine, self._shadows, fail)
        self._shadow.has_waiting = self._dispatcher.versions.has_waiting
        self._dispatcher.versions.on_answered = self._shadow.offer
        self.on_candidate(model, None)

    def drop_shadow(self) -> None:
        """End the comparison, if there is one."""
        shadow, self._shadow = self._shadow, None
        self._dispatcher.versions.on_answered = None
        if shadow is not None:
            shadow.stop()
            self.on_candidate(None, None)


async def release_memory() -> None:
    """Ask the C library to return freed memory to the system: glibc would keep that of the old model's weights."""
    with suppress(OSError, AttributeError):
        await asyncio.to_thread(ctypes.CDLL(None).malloc_trim, 0)
