"""What the commands that change releases have in common: their author, and making a change."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ....schemas.release import ReleaseState
    from ...release.changes import Change
    from ...settings.settings import Settings

By = Annotated[str | None, typer.Option("--by", metavar="WHO", help="Author in the history. Default: your user name.")]


def releases_topic(settings: "Settings") -> str:
    return f"{settings.prefix}.models"


def read_releases(settings: "Settings") -> "dict[str, ReleaseState]":
    """Return the release state of every model."""
    from ...release.states import read_states
    from ..until_signalled import run_until_stopped

    return run_until_stopped(lambda stop: read_states(settings.kafka, releases_topic(settings)))


def publish_next(
    settings: "Settings", name: str, change: "Change"
) -> "tuple[ReleaseState | None, ReleaseState | None]":
    """Publish the state that `change` returns for the newest one (None: nothing to do); returns both."""
    from ...release import changes
    from ..until_signalled import run_until_stopped

    def on_lost_event() -> None:
        typer.echo(f"the event was not accepted by {settings.prefix}.events; the release is", err=True)

    return run_until_stopped(lambda stop: changes.publish_next(settings, name, change, on_lost_event=on_lost_event))


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def who(by: str | None) -> str:
    """Return the author of a step: the given one, else the user's name."""
    import getpass

    try:
        return getpass.getuser() if by is None else by
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
