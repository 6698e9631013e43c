"""A watcher of releases over a scripted loader, fed with records as the topic would give them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from murmura.runtime.errors import DeviceFailed, SetupError
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.release.candidates import CandidateWatcher
from murmura.runtime.release.failed_candidates import FailedCandidates, ReleaseStates
from murmura.runtime.release.first_model import StartState
from murmura.runtime.release.states import ReleaseLog
from murmura.runtime.release.watcher import ReleaseWatcher
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.release import Release, ReleaseState, released
from murmura.schemas.serving_event import ServingEvent

TASK = TaskSpec(name="intent", kind="classification", labels=["a", "b"])
NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def model(version: int) -> Any:
    return FakeModel([TASK], {}, name="tiny", version=version)


def after(state: ReleaseState | None, version: int, digest: str | None = None) -> ReleaseState:
    return released(state, "tiny", version, digest or f"{version:064x}", by="ann", why="", at=NOON)


class Scripted:
    """A loader that fails in the given ways, one a call, the last of them for ever, and may be held up."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.outcomes = [*outcomes] or [None]
        self.staged: list[int] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def stage(self, name: str, release: Release, *, beside: bool = False) -> Any:
        self.staged.append(release.version)
        await self.go_on.wait()
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is not None:
            raise outcome
        return model(release.version)


class Slot:
    def __init__(self, first: int = 1) -> None:
        self.model = model(first)

    def put(self, new: Any) -> None:
        if new is self.candidate:
            self.candidate = None
        self.model = new

    candidate: Any = None
    assignment: Any = None
    on_failed: Any = None

    def put_candidate(self, new: Any, assignment: Any, on_failed: Any) -> None:
        assert self.candidate is None
        self.candidate, self.assignment, self.on_failed = new, assignment, on_failed

    def assign(self, assignment: Any) -> None:
        self.assignment = assignment

    shadow: Any = None

    def put_shadow(self, new: Any, share: float, on_failed: Any) -> None:
        assert self.shadow is None
        self.shadow, self.assignment, self.on_failed = new, share, on_failed

    def drop_shadow(self) -> None:
        self.shadow = None

    def drop_candidate(self) -> None:
        self.candidate = None

    def fail(self, why: str) -> None:
        self.candidate = None
        self.on_failed(DeviceFailed(why))


class Reporter:
    def __init__(self) -> None:
        self.events: list[ServingEvent] = []

    def emit(self, kind: str, **facts: Any) -> None:
        self.events.append(ServingEvent(event=kind, app="a", at=NOON, **facts))

    @property
    def kinds(self) -> list[tuple[str, int | None, str | None]]:
        return [(event.event, event.version, event.reason) for event in self.events]


class World:
    """A watcher over a scripted loader, fed with records as the topic would give them."""

    def __init__(self, loader: Any, settings: Settings, start: StartState | None = None) -> None:
        self.loader, self.slot, self.reporter, self.metrics = loader, Slot(), Reporter(), Metrics()
        self.log = ReleaseLog()
        states = ReleaseStates(self.read_state, self.publish_state)
        self.failed = FailedCandidates(states, self.reporter, "here", pauses_s=(0.0, 0.01))
        self.candidates = CandidateWatcher(
            "tiny", loader, self.slot, self.reporter, self.metrics, self.failed, first_wait_s=0.02
        )
        self.watcher = ReleaseWatcher(
            settings, loader, self.slot, self.reporter, self.metrics, self.candidates, start=start, first_wait_s=0.02
        )

    async def read_state(self) -> ReleaseState | None:
        return self.log.states.get("tiny")

    async def publish_state(self, state: ReleaseState) -> None:
        """Publish by the topic's rule: of two states that build on the same one the first wins."""
        if self.before_publish:
            self.before_publish.pop()()
        self.published += 1
        if state.generation != self.log.states["tiny"].generation + 1:
            raise SetupError("another one was first")
        self.hear(state)

    published = 0
    before_publish: tuple[Callable[[], None], ...] | list[Callable[[], None]] = ()

    def hear(self, state: ReleaseState | None) -> None:
        value = None if state is None else state.model_dump_json().encode()
        self.watcher.handle_record(self.log.apply(b"tiny", value))

    def count(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("murmura_model_swaps_total", {"outcome": outcome}) or 0.0

    @asynccontextmanager
    async def running(self, *more: Any) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(loop)
            for loop in (self.watcher.run_swaps(), self.candidates.run(), self.failed.run(), *more)
        ]
        try:
            yield
            assert not [task for task in tasks if task.done()], "a loop has ended"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
def world() -> Callable[..., World]:
    def make(*outcomes: Exception | None, start: StartState | None = None) -> World:
        settings = Settings(app="a", model={"store": "/nowhere", "name": "tiny"})
        return World(Scripted(*outcomes), settings, start)

    return make
