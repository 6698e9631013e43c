"""The loaded versions of one model, and which of them answers a unit."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..agent.routes import Route
from .engine_port import EngineLike


class LoadedVersion(NamedTuple):
    """A version that answers, with the routes of its own tasks."""

    model: Any
    routes: Mapping[str, Route]
    """By topic."""


class Versions:
    """The current version, and perhaps a candidate. Used on the event loop.

    Invariant: without a candidate, and for what a candidate has failed on, the current version answers.
    """

    def __init__(self, current: LoadedVersion) -> None:
        self.current = current
        self.candidate: LoadedVersion | None = None
        self._is_candidates: Callable[[str], bool] = lambda unit: False

    def choose(self, unit: str) -> LoadedVersion:
        """Return the version that answers a unit, such as a request."""
        candidate = self.candidate
        return candidate if candidate is not None and self._is_candidates(unit) else self.current

    def has(self, version: LoadedVersion) -> bool:
        """Return whether new units may be answered by a version: it was neither replaced nor dropped."""
        return version is self.current or version is self.candidate

    def add_candidate(self, candidate: LoadedVersion, is_candidates: Callable[[str], bool]) -> None:
        """Let a candidate answer the units of which `is_candidates` is true."""
        self.candidate, self._is_candidates = candidate, is_candidates

    def drop_candidate(self) -> None:
        """Let the current version answer every unit from now on."""
        self.candidate = None


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
