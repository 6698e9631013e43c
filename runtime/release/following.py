"""Connects what follows the releases of one model."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from ..batching.versions import ServedModel
from ..observe.health import HealthState
from ..observe.metrics import Metrics
from ..output.serving_events import ServingEvents
from ..shadow.shared import Shared
from .candidates import CandidateWatcher
from .failed_candidates import FailedCandidates, ReleaseStates
from .fall_back import FallBack
from .model_report import report_candidate, report_model
from .slot import ModelSlot
from .staging import Stages
from .start_models import StartedModel
from .watcher import ReleaseWatcher

Loops = list[Callable[[], Coroutine[Any, Any, None]]]


def follow_releases(
    started: StartedModel,
    loader: Stages,
    served: ServedModel,
    health: HealthState,
    metrics: Metrics,
    events: ServingEvents,
    shadows: Shared,
) -> tuple[ReleaseWatcher, Loops]:
    """Return the watcher of a model's releases, and the coroutine functions that run until the process stops.

    `shadows`: what the versions that are only compared share.
    """
    settings, name = started.settings, started.settings.model.name or ""
    slot = ModelSlot(settings, started.agents, started.engine, served, shadows)
    slot.on_swap = partial(report_model, health, metrics, started)
    slot.on_candidate = partial(report_candidate, health, metrics, started)
    by = f"{settings.app} ({events.instance})"
    failed = FailedCandidates(ReleaseStates.from_settings(settings, name), events, by)
    candidates = CandidateWatcher(name, loader, slot, events, metrics, failed)
    watcher = ReleaseWatcher(settings, loader, slot, events, metrics, candidates, start=started.start)
    fall_back = FallBack(name, loader, slot, started.engine, watcher, events)
    return watcher, [watcher.follow, watcher.run_swaps, candidates.run, failed.run, fall_back.run]
