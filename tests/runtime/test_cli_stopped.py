"""Ctrl-C while a command reads from a broker, or works out what to publish: it ends, and publishes nothing."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from murmura.runtime.cli.experiments.clock_check import check_clock
from murmura.runtime.cli.experiments.kept import read_kept
from murmura.runtime.cli.experiments.shadow import write_shadow_report
from murmura.runtime.cli.experiments.unit_rate import measure_unit_rate
from murmura.runtime.cli.releases.steps import publish_next, read_releases
from murmura.runtime.errors import Closed
from murmura.runtime.release import changes
from murmura.runtime.settings.settings import Settings
from murmura.schemas.experiment import Measure, Rules
from murmura.schemas.release import ReleaseState

RULES = Rules(goals=[Measure(measure="withheld")])


@pytest.fixture
def settings() -> Iterator[Settings]:
    """Settings with a broker that takes connections and does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield Settings(kafka={"bootstrap_servers": f"127.0.0.1:{silent.getsockname()[1]}"})


@pytest.mark.parametrize(
    "read",
    [
        check_clock,
        read_kept,
        read_releases,
        lambda settings: measure_unit_rate(settings, "desk", "key", RULES),
        lambda settings: write_shadow_report(settings, "desk", 2),
    ],
    ids=["clock", "kept", "releases", "unit rate", "shadow"],
)
def test_ctrl_c_ends_what_reads_from_a_broker(settings: Settings, read: Callable[[Settings], object]) -> None:
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    began = time.monotonic()
    try:
        with pytest.raises(Closed, match="stopped before it was done"):
            read(settings)
    finally:
        interrupt.join()
    assert time.monotonic() - began < 10


def test_a_change_that_was_stopped_is_not_published(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    published = []

    async def read_states(*arguments: object) -> dict[str, ReleaseState]:
        return {}

    async def publish_state(*arguments: object, **options: object) -> None:
        published.append(arguments)

    def change(state: ReleaseState | None) -> ReleaseState | None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        return None if state else ReleaseState.model_construct(name="desk")

    monkeypatch.setattr(changes, "read_states", read_states)
    monkeypatch.setattr(changes, "publish_state", publish_state)
    with pytest.raises(Closed, match="nothing is published"):
        publish_next(settings, "desk", change)
    assert not published
