"""Reports a failing device through readiness, a metric and an event; ends the process when the device is given up."""

import time
from collections.abc import Callable
from functools import partial

from ...schemas.serving_event import ServingEventKind
from ..batching.engine import Engine
from ..errors import DeviceFailed
from ..observe.health import HealthState
from ..observe.metrics import Metrics
from .serving_events import ServingEvents


def watch_device(
    engine: Engine,
    health: HealthState,
    metrics: Metrics,
    events: ServingEvents | None,
    fail: Callable[[Exception], None],
) -> None:
    """Connect a started engine to health, metrics and events. `fail` ends the process with an error."""
    metrics.watch(device_fails=lambda: engine.trouble is not None)
    engine.on_lost = partial(_lose, health, fail)
    began: list[float] = []

    def change(why: str | None) -> None:
        health.device_trouble = why
        if why is not None:
            began[:] = [time.monotonic()]
        if events is not None and why is not None:
            events.emit(ServingEventKind.DEVICE_FAILED, message=why)
        elif events is not None:
            events.emit(ServingEventKind.DEVICE_RECOVERED, seconds=time.monotonic() - began[0])

    engine.on_trouble = change


def _lose(health: HealthState, fail: Callable[[Exception], None], error: DeviceFailed) -> None:
    health.device_trouble = str(error)
    fail(error)
