"""What a new process serves while the current version is good, bad, or out of reach."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tiny_model import TASKS, write_tiny_model

from murmura.runtime.errors import ModelFailed, SetupError, VersionRefused
from murmura.runtime.release import first_model as module
from murmura.runtime.release.first_model import first_model
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel
from murmura.schemas.release import Release, ReleaseState, released, rolled_back

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def states(*versions: int) -> ReleaseState:
    state = None
    for version in versions:
        state = released(state, "tiny", version, f"{version:064x}", by="ann", why="", at=NOON)
    assert state is not None
    return state


class Loads:
    """Loads versions, save those that it is told to fail on."""

    def __init__(self, **bad: Exception) -> None:
        self.bad = {int(name.removeprefix("v")): error for name, error in bad.items()}
        self.tried: list[int] = []

    async def stage(self, name: str, release: Release) -> Any:
        self.tried.append(release.version)
        if release.version in self.bad:
            raise self.bad[release.version]
        return FakeModel(TASKS, {}, name=name, version=release.version)


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch):
    """Start with this on the topic."""

    async def begin(state: ReleaseState | None, loader: Loads | None, folder: Path | None = None):
        async def read(kafka: Any, topic: str) -> dict[str, ReleaseState]:
            assert topic == "m.models"
            return {} if state is None else {state.name: state}

        monkeypatch.setattr(module, "read_states", read)
        of: dict[str, Any] = {"folder": folder, "device": "cpu"}
        if loader is not None:
            of |= {"store": "/nowhere", "name": "tiny"}
        return await first_model(Settings(app="a", prefix="m", model=of), loader)

    return begin


async def test_the_released_version_serves(begin):
    state = states(1, 2)
    model, start = await begin(state, Loads())
    assert model.manifest.version == 2
    assert (start.state, start.serves, start.refused) == (state, state.current, None)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (VersionRefused("damaged", "cut off"), "damaged"),
        (VersionRefused("store_unreachable", "away"), "store_unreachable"),
        (ModelFailed("onnxruntime: no"), "wrong_shape"),
        (OSError(5, "Input/output error"), "failed"),
        (MemoryError(), "too_large"),
        (ZeroDivisionError(), "failed"),
    ],
)
async def test_while_the_current_version_cannot_serve_the_newest_before_it_does(begin, error, reason):
    state = states(1, 2, 3, 4)
    loader = Loads(v4=error, v3=VersionRefused("missing", "deleted"))
    model, start = await begin(state, loader)
    assert (model.manifest.version, loader.tried) == (2, [4, 3, 2])
    assert (start.state, start.serves) == (state, Release(version=2, digest=f"{2:064x}"))
    assert start.refused is not None
    assert start.refused.reason == reason


async def test_no_version_is_tried_twice(begin):
    state = rolled_back(states(1, 2, 1, 2), by="bo", why="", at=NOON)
    loader = Loads(v1=MemoryError(), v2=MemoryError())
    with pytest.raises(VersionRefused):
        await begin(state, loader)
    assert loader.tried == [1, 2]


async def test_when_no_version_can_serve_the_folder_does(begin, tmp_path):
    folder = write_tiny_model(tmp_path / "model", TASKS[:1])
    state = states(1)
    model, start = await begin(state, Loads(v1=VersionRefused("damaged", "cut off")), folder)
    assert model.manifest.version == 0
    assert (start.serves, start.refused.reason) == (None, "damaged")


async def test_when_nothing_can_serve_the_start_is_refused_with_the_reason_of_the_current_version(begin):
    with pytest.raises(VersionRefused, match="cut off") as caught:
        await begin(states(1, 2), Loads(v2=VersionRefused("damaged", "cut off"), v1=MemoryError()))
    assert caught.value.reason == "damaged"


async def test_without_a_release_the_folder_serves_and_without_both_the_start_is_refused(begin, tmp_path):
    folder = write_tiny_model(tmp_path / "model", TASKS[:1])
    model, start = await begin(None, Loads(), folder)
    assert (model.manifest.version, start.state, start.refused) == (0, None, None)
    with pytest.raises(SetupError, match=r"model tiny has no release on .*: release one, or name a folder"):
        await begin(None, Loads())
    with pytest.raises(SetupError, match="no model: name a model folder"):
        await begin(None, None)
