"""Publishes the next release state of a model: what the commands that change releases have in common."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...schemas.release import ReleaseState
    from ..release.experiment_events import StepEvent
    from ..settings.settings import Settings

_EVENT_S: Final = 10.0

By = Annotated[str | None, typer.Option("--by", metavar="WHO", help="Author in the history. Default: your user name.")]


def releases_topic(settings: "Settings") -> str:
    return f"{settings.prefix}.models"


def read_releases(settings: "Settings") -> "dict[str, ReleaseState]":
    """Return the release state of every model."""
    from ..release.states import read_states
    from .until_signalled import run_until_stopped

    return run_until_stopped(lambda stop: read_states(settings.kafka, releases_topic(settings)))


def publish_next(
    settings: "Settings", name: str, step: "Callable[[ReleaseState | None], ReleaseState | None]"
) -> "tuple[ReleaseState | None, ReleaseState | None]":
    """Publish the state that `step` returns for the current one (None: nothing to do); returns both.

    A step of an experiment is an event in `murmura.events` too. A step that does not follow is a SetupError.
    """
    from pydantic import ValidationError

    from .until_signalled import run_until_stopped

    before = read_releases(settings).get(name)
    try:
        new = step(before)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SetupError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError as error:
        raise SetupError(str(error)) from None
    if new is not None:
        run_until_stopped(lambda stop: _publish(settings, before, new))
    return before, new


async def _publish(settings: "Settings", before: "ReleaseState | None", new: "ReleaseState") -> None:
    from ..release.experiment_events import event_of_step
    from ..release.states import publish_state

    await publish_state(settings.kafka, releases_topic(settings), new, producer=settings.producer)
    event = event_of_step(before, new)
    if event is not None and not await _emit(settings, event):
        typer.echo(f"the event was not accepted by {settings.prefix}.events; the release is", err=True)


async def _emit(settings: "Settings", event: "StepEvent") -> bool:
    from ..kafka.producer import producer_factory
    from ..kafka.publisher import Publisher
    from ..output.serving_events import ServingEvents

    make = producer_factory(settings.kafka, settings.producer)
    events = ServingEvents(settings.app, f"{settings.prefix}.events", lambda: Publisher(make))
    events.emit(event.kind, **event.facts)
    return await events.finish(_EVENT_S)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def who(by: str | None) -> str:
    """Return the author of a step: the given one, else the user's name."""
    import getpass

    try:
        return getpass.getuser() if by is None else by
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
