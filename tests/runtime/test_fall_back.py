"""The version before serves while the device fails with the current one."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from murmura.runtime.errors import VersionRefused
from murmura.runtime.release import fall_back
from murmura.runtime.release.fall_back import FallBack
from murmura.runtime.testing.fakes import FakeModel
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.release import released
from murmura.schemas.serving_event import ServingEvent

TASK = TaskSpec(name="intent", kind="classification", labels=["a", "b"])
NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def three_releases():
    state = None
    for version in (1, 2, 3):
        state = released(state, "tiny", version, f"{version:064x}", by="ann", why="", at=NOON)
    return state


class World:
    """A loader, a slot, a device, releases and events, all in one."""

    def __init__(self, refused=()):
        self.state = three_releases()
        self.serves = self.state.current
        self.model = FakeModel([TASK], name="tiny", version=3)
        self.trouble, self.failed_probes = "out of memory", 0
        self.refused, self.staged, self.events = set(refused), [], []
        self.recovers_while_staging = False

    async def stage(self, name, release):
        self.staged.append(release.version)
        if release.version in self.refused:
            raise VersionRefused("not_reproduced", "it does not answer here either")
        if self.recovers_while_staging:
            self.trouble, self.failed_probes = None, 0
        return FakeModel([TASK], name=name, version=release.version)

    def put(self, model):
        self.model = model
        self.trouble, self.failed_probes = None, 0

    def emit(self, kind, **facts):
        self.events.append(ServingEvent(event=kind, app="a", at=NOON, **facts))

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(FallBack("tiny", self, self, self, self, self).run())
        yield
        assert not task.done()
        task.cancel()


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(fall_back, "_CHECK_S", 0.01)


async def until(seen):
    async with asyncio.timeout(60):
        while not seen():
            await asyncio.sleep(0.01)


async def test_after_three_failed_probes_the_newest_version_before_serves_and_an_event_says_so():
    world = World()
    async with world.running():
        world.failed_probes = 2
        await asyncio.sleep(0.05)
        assert world.staged == []
        world.failed_probes = 3
        await until(lambda: bool(world.events))
    assert world.model.manifest.version == 2
    assert world.serves.version == 2
    (event,) = world.events
    assert (event.event, event.version, event.previous, event.message) == ("model.fell_back", 2, 3, "out of memory")
    assert world.state.current.version == 3


async def test_a_version_that_does_not_answer_either_is_passed_over():
    world = World(refused={2})
    async with world.running():
        world.failed_probes = 3
        await until(lambda: bool(world.events))
    assert world.staged == [2, 1]
    assert world.model.manifest.version == 1


async def test_with_a_broken_device_each_version_is_tried_once_and_none_takes_the_place():
    world = World(refused={1, 2})
    async with world.running():
        world.failed_probes = 3
        await until(lambda: world.staged == [2, 1])
        world.failed_probes = 9
        await asyncio.sleep(0.1)
    assert world.staged == [2, 1]
    assert world.model.manifest.version == 3
    assert world.events == []


async def test_a_device_that_answers_again_meanwhile_keeps_the_released_version():
    world = World()
    world.recovers_while_staging = True
    async with world.running():
        world.failed_probes = 3
        await until(lambda: world.staged == [2])
        await asyncio.sleep(0.05)
    assert world.model.manifest.version == 3
    assert world.events == []
