"""What the commands that change releases have in common: their author, and making a change."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import asyncio

    from ....schemas.release import ReleaseState
    from ...release.changes import Change
    from ...settings.settings import Settings

By = Annotated[str | None, typer.Option("--by", metavar="WHO", help="Author in the history. Default: your user name.")]


def releases_topic(settings: "Settings") -> str:
    return f"{settings.prefix}.models"


def read_releases(settings: "Settings") -> "dict[str, ReleaseState]":
    """Return the release state of every model."""
    from ...release.states import read_states
    from ..until_signalled import run_cancellable

    return run_cancellable(lambda stop: read_states(settings.kafka, releases_topic(settings)))


def publish_next(
    settings: "Settings", name: str, change: "Change"
) -> "tuple[ReleaseState | None, ReleaseState | None]":
    """Publish the state that `change` returns for the newest one (None: nothing to do); returns both.

    Raises Closed, and publishes nothing, where Ctrl-C or SIGTERM comes before `change` has returned.
    """
    from ...errors import Closed
    from ...release import changes
    from ..until_signalled import run_until_stopped

    def on_lost_event() -> None:
        typer.echo(f"the event was not accepted by {settings.prefix}.events; the release is", err=True)

    async def main(stop: "asyncio.Event") -> "tuple[ReleaseState | None, ReleaseState | None]":
        def change_unless_stopped(state: "ReleaseState | None") -> "ReleaseState | None":
            new = change(state)
            if stop.is_set():
                raise Closed("stopped before it was done: nothing is published")
            return new

        return await changes.publish_next(settings, name, change_unless_stopped, on_lost_event=on_lost_event)

    return run_until_stopped(main)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def who(by: str | None) -> str:
    """Return the author of a step: the given one, else the user's name."""
    import getpass

    try:
        return getpass.getuser() if by is None else by
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
