"""Changes the release of a model: what commands and the console do, each as one change of the newest state.

A change takes the newest release state of a model, None for a model without one, and returns the next; None: nothing to do.
Changes may block, as they read the model store.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from ...schemas.release import ReleaseState, released, rolled_back, stopped
from ..errors import SetupError
from ..kafka.sending.producer import producer_factory
from ..kafka.sending.publisher import Publisher
from ..output.serving_events import ServingEvents
from ..settings.settings import Settings
from .experiment_events import StepEvent, event_of_step
from .states import publish_state, read_states
from .store import ModelStore

Change = Callable[[ReleaseState | None], ReleaseState | None]

_EVENT_S: Final = 10.0


def releases_topic(settings: Settings) -> str:
    return f"{settings.prefix}.models"


def open_store(settings: Settings, name: str, url: str | None = None) -> ModelStore:
    """Return the store of a model. Raises SetupError where none is set."""
    address = settings.for_model(name).model.store if url is None else url
    if not address:
        several = f"models.{name}.store" if settings.models else "model.store and model.name"
        raise SetupError(f"no model store is set: say where it is with --store URL, or set {several}")
    return ModelStore(address)


def make_release(
    store: ModelStore, name: str, version: int, *, by: str, why: str, at: datetime, again: bool = False
) -> Change:
    """Return the change that makes a version of the store current. Raises VersionRefused for one that it has not.

    Nothing is to do where that version is current, but with `again`.
    """
    store.describe(name, version)
    digest = store.digest(name, version)

    def change(state: ReleaseState | None) -> ReleaseState | None:
        if not again and state is not None and (state.current.version, state.current.digest) == (version, digest):
            return None
        return released(state, name, version, digest, by=by, why=why, at=at)

    return change


def make_rollback(settings: Settings, name: str, *, by: str, why: str, at: datetime, url: str | None = None) -> Change:
    """Return the change that makes the version before the current one current again; it raises SetupError without one.

    Where a store is set, it raises SetupError when the store has not that version as it was released.
    """

    def change(state: ReleaseState | None) -> ReleaseState | None:
        if state is None:
            raise SetupError(f"{name} has no release to go back from; `murmura models history` names those that have")
        try:
            new = rolled_back(state, by=by, why=why, at=at)
        except LookupError as error:
            raise SetupError(f"{error.args[0]}; `murmura models release {name} VERSION` takes any") from None
        if url or settings.for_model(name).model.store:
            _check_unchanged(open_store(settings, name, url), new)
        return new

    return change


def make_stop(name: str, *, by: str, why: str, at: datetime) -> Change:
    """Return the change that ends an experiment or a shadow; it raises SetupError without one."""

    def change(state: ReleaseState | None) -> ReleaseState | None:
        if state is None:
            raise SetupError(f"{name} has no release, so nothing runs beside it")
        return stopped(state, by=by, why=why, at=at)

    return change


def _check_unchanged(store: ModelStore, state: ReleaseState) -> None:
    current = state.current
    if store.digest(state.name, current.version) != current.digest:
        raise SetupError(
            f"{state.name} {current.version} in {store.address} is not what was released as it (SHA-256); "
            "put the old one back, or release another version"
        )


async def publish_next(
    settings: Settings,
    name: str,
    change: Change,
    *,
    on_lost_event: Callable[[], None] = lambda: None,
    patience_s: float | None = None,
) -> tuple[ReleaseState | None, ReleaseState | None]:
    """Publish the state that `change` returns for the newest one; returns both. Raises SetupError, also where `change` takes
    longer than `patience_s`: then nothing is published.

    A step of an experiment is an event in `murmura.events` too; `on_lost_event` is called where the broker has not taken it.
    """
    topic = releases_topic(settings)
    before = (await read_states(settings.kafka, topic)).get(name)
    try:
        async with asyncio.timeout(patience_s):
            new = await asyncio.to_thread(change, before)
    except TimeoutError:
        limit = "in time" if patience_s is None else f"within {patience_s:g} s"
        raise SetupError(f"the model store did not answer {limit}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SetupError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError as error:
        raise SetupError(str(error)) from None
    if new is not None:
        await publish_state(settings.kafka, topic, new, producer=settings.producer)
        event = event_of_step(before, new)
        if event is not None and not await _emit(settings, event):
            on_lost_event()
    return before, new


async def _emit(settings: Settings, event: StepEvent) -> bool:
    make = producer_factory(settings.kafka, settings.producer)
    events = ServingEvents(settings.app, f"{settings.prefix}.events", lambda: Publisher(make))
    events.emit(event.kind, **event.facts)
    return await events.finish(_EVENT_S)
