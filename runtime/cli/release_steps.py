"""Publishes the next release state of a model: what the commands that change releases have in common."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...schemas.release import ReleaseState
    from ..settings.settings import Settings

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
    """Publish the state that `step` returns for the current one (None: nothing to do); returns both."""
    from pydantic import ValidationError

    from ..release.states import publish_state
    from .until_signalled import run_until_stopped

    before = read_releases(settings).get(name)
    try:
        new = step(before)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SetupError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if new is not None:
        topic = releases_topic(settings)
        run_until_stopped(lambda stop: publish_state(settings.kafka, topic, new, producer=settings.producer))
    return before, new


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def who(by: str | None) -> str:
    """Return the author of a step: the given one, else the user's name."""
    import getpass

    try:
        return getpass.getuser() if by is None else by
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
