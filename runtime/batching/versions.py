"""The loaded versions of one model, and which of them answers a unit."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..agent.routes import Route


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

    def has(self, model: Any) -> bool:
        """Return whether a model is one of the versions."""
        return any(version is not None and version.model is model for version in (self.current, self.candidate))

    def add_candidate(self, candidate: LoadedVersion, is_candidates: Callable[[str], bool]) -> None:
        """Let a candidate answer the units of which `is_candidates` is true."""
        self.candidate, self._is_candidates = candidate, is_candidates

    def drop_candidate(self) -> None:
        """Let the current version answer every unit from now on."""
        self.candidate = None
