"""Exchanging the model that serves: everybody who has to know hears of it, or nothing changes."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs
from tiny_model import TASKS

from murmura.agents.classification import agent as classification
from murmura.runtime.errors import SetupError
from murmura.runtime.model.pass_time import PassTime
from murmura.runtime.release.slot import ModelSlot
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel


class Engine:
    def __init__(self, model: Any) -> None:
        self.model = model

    def swap(self, model: Any, passes: PassTime | None) -> None:
        self.model, self.passes = model, passes


class Dispatcher:
    def __init__(self) -> None:
        self.routes: list[dict[str, Any]] = []
        self.versions = SimpleNamespace(candidate=None)

    def reroute(self, routes: dict[str, Any]) -> None:
        self.routes.append(routes)


def model(version: int, device: str = "cpu", tasks: Any = TASKS) -> Any:
    made = FakeModel(tasks, {}, name="tiny", version=version)
    return SimpleNamespace(
        manifest=made.manifest, tasks=made.tasks, device=device, pass_time=PassTime(0.001, 0.001, 0.002)
    )


@pytest.fixture
def slot() -> ModelSlot:
    agent = dataclasses.replace(classification, tasks=("intent",))
    return ModelSlot(Settings(app="a"), [agent], Engine(model(1)), Dispatcher())


def test_engine_routes_and_whoever_describes_the_model_get_the_new_one(slot):
    heard = []
    slot.on_swap = heard.append
    slot.put(new := model(2, tasks=TASKS[:1]))
    assert (slot.model, heard) == (new, [new])
    assert slot._engine.passes.slowest_token_s == 0.002, "a slower model needs a longer deadline"
    (routes,) = slot._dispatcher.routes
    assert [route.tasks for route in routes.values()] == [("intent",)]


def test_a_model_that_an_agent_cannot_work_with_changes_nothing(slot):
    before = slot.model
    with pytest.raises(SetupError, match="task intent is not one of"):
        slot.put(model(2, tasks=TASKS[1:]))
    assert (slot.model, slot._dispatcher.routes) == (before, [])


@pytest.mark.parametrize(("device", "lines"), [("cpu", 0), ("cuda", 1)])
def test_a_swap_to_another_device_is_warned_of(slot, device, lines):
    with capture_logs() as logs:
        slot.put(model(2, device))
    assert [line["log_level"] for line in logs] == ["warning"] * lines
