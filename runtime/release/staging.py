"""Turns a release into a model ready to serve: fetched, checked, tried in a child process, loaded, warmed up."""

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from threading import Event
from typing import Final, NamedTuple, Protocol

from ...schemas.manifest import Base, ModelManifest
from ...schemas.release import Release
from ...schemas.serving_event import RejectReason as Reason
from ..agent.agent import Agent
from ..agent.handler import Handler
from ..agent.routes import check_handlers, make_routes, prepare_handlers
from ..batching.costs.calibration import Turn, measure_passes
from ..errors import DISK_FULL, DeviceFailed, ModelFailed, ModelRefused, MurmuraError, SetupError, VersionRefused
from ..model.deltas.assembled import assembled_folder
from ..model.folders.folder import cache_folder, read_manifest
from ..model.memory import check_room, find_free_bytes, find_needed_bytes
from ..model.model import Model, sample_error
from ..model.onnx_session import Session
from ..observe.logs import get_logger
from ..settings.settings import Settings
from .store import ModelStore
from .trial_process import prove

log = get_logger(__name__)

_IN_PROCESS_S: Final = 30.0
"""Time limit of sample, warm-up and calibration in this process, after the child has run the same in time. Waits for turns do not count."""


UNCERTAIN_TRIES: Final = 5
"""Number of attempts at a version whose refusal this machine may have caused."""


class _RunLimit:
    """The time limit of the runs of a version that is being loaded, all of which are in turns. In one thread.

    A turn is waited for before its time counts: on a busy device a wait takes longer than the runs.
    """

    def __init__(self, sessions: Sequence[Session], turn: Turn, given_up: Event) -> None:
        self._sessions, self._turn, self._given_up = sessions, turn, given_up
        self._left_s = _IN_PROCESS_S

    @property
    def is_over(self) -> bool:
        """Whether the time is over, or nobody waits for the version any more: then its sessions run nothing more."""
        return self._given_up.is_set() or any(session.overdue for session in self._sessions)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and have it until the block ends. Raises ModelFailed where the time is over or was given up."""
        with self._turn(), ExitStack() as limits:
            if self.is_over:
                raise ModelFailed("its time is up")
            for session in self._sessions:
                limits.enter_context(session.within(self._left_s, self._given_up))
            began = time.monotonic()
            try:
                yield
            finally:
                self._left_s -= time.monotonic() - began


class Stages(Protocol):
    """The loader's interface for the first model and the watcher of releases."""

    async def stage(self, name: str, release: Release, *, beside: bool = False) -> Model: ...


class Loader:
    """Loads versions of one store for the agents and handlers of this process."""

    def __init__(
        self, settings: Settings, store: ModelStore, agents: Sequence[Agent], handlers: Sequence[Handler] = ()
    ) -> None:
        self._settings = settings
        self._store = store
        self._agents = agents
        self._handlers = handlers
        self.turn: Turn = nullcontext
        """The turn that each pass of a model has on the device while another version serves."""

    async def stage(self, name: str, release: Release, *, beside: bool = False) -> Model:
        """Run `load` off the event loop. Cancelling ends the trial of the model; a download continues to its end.

        `beside`: it stays beside the serving version, so that there must be memory for both.
        """
        given_up = Event()
        try:
            return await asyncio.to_thread(self.load, name, release.version, release.digest, given_up, beside=beside)
        finally:
            given_up.set()

    def load(
        self, name: str, version: int, digest: str, given_up: Event | None = None, *, beside: bool = False
    ) -> Model:
        """Return the model of a version. Raises ModelRefused with the reason when it must not serve. Blocks for seconds."""
        given_up = given_up or Event()
        try:
            return self._load(name, version, digest, given_up, beside)
        except ModelRefused as refused:
            if refused.reason is not Reason.MISSING:
                raise
            # Another process may have removed it from the shared cache meanwhile.
            return self._load(name, version, digest, given_up, beside)

    def _load(self, name: str, version: int, digest: str, given_up: Event, beside: bool) -> Model:
        chosen = self._settings.model
        fetched = self._store.fetch(name, version, digest, cache_folder() / "versions")
        manifest = read_manifest(fetched)
        self._check_agents(manifest)
        if beside:
            self._check_memory(name, manifest)
        if manifest.base is not None and not assembled_folder(fetched, manifest).exists():
            _fetch_base(manifest.base)
        folder = prove(
            fetched,
            chosen.graph,
            max_rows=chosen.max_rows,
            timeout_s=chosen.trial_timeout_s,
            memory_bytes=chosen.trial_memory_bytes,
            given_up=given_up,
        )
        model = Model.open(folder, device=chosen.device, graph=chosen.graph)
        sessions = [runner for runner in model.runners if isinstance(runner, Session)]
        limit = _RunLimit(sessions, self.turn, given_up)
        endless = VersionRefused(
            Reason.ENDLESS, f"{name} {version}: a few texts took more than {_IN_PROCESS_S:g} s", certain=False
        )
        try:
            with limit.turn():
                model.reproduce(folder, required=True)
            model.pass_time = measure_passes(model, max_rows=chosen.max_rows, turn=limit.turn)
        except (ModelFailed, ModelRefused) as error:
            if limit.is_over:
                raise endless from error
            if isinstance(error, DeviceFailed):
                raise VersionRefused(Reason.TOO_LARGE, f"{name} {version}: {error}", certain=False) from error
            if isinstance(error, ModelFailed):
                raise sample_error(error, f"{name} {version}") from error
            raise
        if limit.is_over:  # just after the last run: a session would run nothing any more
            raise endless
        try:
            prepare_handlers(self._handlers, model)
        except SetupError as error:
            raise VersionRefused(Reason.LACKS_TASK, str(error)) from error
        return model

    def _check_memory(self, name: str, manifest: ModelManifest) -> None:
        """Refuse a model for which there is no memory beside the one that serves."""
        graph, free = self._settings.model.graph, find_free_bytes()
        needed_mb, free_mb = find_needed_bytes(manifest, graph) / 1e6, None if free is None else round(free / 1e6)
        log.info(
            "memory of a candidate",
            model=name,
            version=manifest.version,
            graphs_mb=round(needed_mb, 1),
            free_mb=free_mb,
        )
        try:
            check_room(f"{name} {manifest.version}", manifest, graph, free)
        except SetupError as error:
            raise VersionRefused(Reason.TOO_LARGE, str(error), certain=False) from error

    def _check_agents(self, manifest: ModelManifest) -> None:
        """Refuse a model that the agents or handlers of this process cannot work with."""
        try:
            make_routes(self._agents, manifest, self._settings.app)
            check_handlers(self._handlers, manifest)
        except SetupError as error:
            raise VersionRefused(Reason.LACKS_TASK, str(error)) from error


def _fetch_base(base: Base) -> None:
    """Fetch the base checkpoint before the child's time starts: it may have to be downloaded."""
    from ..model.deltas.delta import find_base  # noqa: PLC0415  (it needs spox and safetensors, which serving a model does not)

    try:
        find_base(base.source, base.sha256)
    except SetupError as error:
        raise VersionRefused(Reason.NO_BASE, str(error)) from error


class Refusal(NamedTuple):
    """Why a version does not serve. Stored instead of the error, whose traceback would keep the refused model alive."""

    reason: Reason
    message: str
    certain: bool = True
    """Whether the version itself is the cause. Otherwise this machine may be: short of memory or busy."""

    @property
    def tries(self) -> float:
        """The maximum number of attempts."""
        if self.reason in {Reason.STORE_UNREACHABLE, Reason.NO_ROOM, Reason.NO_BASE}:
            return math.inf  # caused by the environment: another attempt may succeed
        return 1 if self.certain else UNCERTAIN_TRIES


def make_refusal(error: Exception) -> Refusal:
    """Return the refusal for an error of loading a version; an unexpected error is logged."""
    if isinstance(error, DeviceFailed):
        return Refusal(Reason.TOO_LARGE, f"the version: {error}", certain=False)
    if isinstance(error, ModelFailed):
        error = sample_error(error, "the version")
    if isinstance(error, ModelRefused):
        return Refusal(error.reason, str(error), certain=getattr(error, "certain", True))
    if isinstance(error, MemoryError):
        return Refusal(Reason.TOO_LARGE, "it needs more memory than there is", certain=False)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return Refusal(Reason.NO_ROOM, str(error))
    if not isinstance(error, OSError | MurmuraError):
        log.error("a version could not be loaded", exc_info=error)
    return Refusal(Reason.FAILED, f"{type(error).__name__}: {error}", certain=False)
