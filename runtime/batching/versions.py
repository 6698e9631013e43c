"""The loaded versions of one model, and which of them answers a side of an experiment."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ...schemas.manifest import ModelManifest
from ..agent.routes import Route
from ..experiments.assignment import Side
from ..experiments.unit_assignment import Assignment
from .engine_port import EngineLike
from .queues.entry import Entry


class LoadedVersion(NamedTuple):
    """A version that answers, with the routes of its own tasks."""

    model: Any
    routes: Mapping[str, Route]
    """By topic."""


OnAnswered = Callable[[Sequence[Entry], ModelManifest, Collection[tuple[str, int]]], None]


class Versions:
    """The current version, and perhaps a candidate. Used on the event loop.

    Invariant: without a candidate, and for what a candidate has failed on, the current version answers.
    """

    def __init__(self, current: LoadedVersion) -> None:
        self.current = current
        self.candidate: LoadedVersion | None = None
        self.on_answered: OnAnswered | None = None
        """Called with each batch once its messages are acknowledged, with the manifest of the version that answered it, and with the
        agents whose results these are, each with the `id()` of its record; set where a version is only compared.
        """
        self.has_waiting: Callable[[], bool] = lambda: False
        """Whether records wait that are in no version's queue yet."""
        self.assignment: Assignment | None = None
        """Of the experiment in which the candidate answers; None without one."""

    def choose(self, side: Side) -> LoadedVersion:
        """Return the version that answers a side."""
        return self.candidate if self.candidate is not None and side == "candidate" else self.current

    def has(self, version: LoadedVersion) -> bool:
        """Return whether new units may be answered by a version: it was neither replaced nor dropped."""
        return version is self.current or version is self.candidate

    def add_candidate(self, candidate: LoadedVersion, assignment: Assignment) -> None:
        """Let a candidate answer its side of an experiment."""
        self.candidate, self.assignment = candidate, assignment

    def drop_candidate(self) -> None:
        """Let the current version answer everything from now on."""
        self.candidate = self.assignment = None


class ServedModel:
    """A model of a process: its engine, and the versions of it that are loaded."""

    def __init__(self, engine: EngineLike, routes: Mapping[str, Route], name: str = "") -> None:
        self.engine, self.name = engine, name
        self.versions = Versions(LoadedVersion(engine.model, routes))
        self.on_reroute: Callable[[], None] = lambda: None

    def reroute(self, routes: Mapping[str, Route]) -> None:
        """Use the routes of another version. Exchange the engine's model without an await in between."""
        self.versions.current = LoadedVersion(self.engine.model, routes)
        self.on_reroute()

    def version(self) -> tuple[str, int]:
        """Return name and version of the serving model."""
        manifest = self.engine.model.manifest
        return manifest.name, manifest.version
