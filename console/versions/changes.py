"""Releases a version and goes back to one, as people confirmed it: nothing is done where the release changed meanwhile."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, TypeVar

from ...runtime.errors import MurmuraError, OutcomeUnknown, SetupError
from ...runtime.observe.logs import get_logger
from ...runtime.release.changes import Change, make_release, make_rollback, make_stop, open_store, publish_next
from ...runtime.settings.settings import Settings
from ...schemas.manifest import ModelManifest
from ...schemas.release import ReleaseState
from ..web.people import Refused
from .daemon import run_in_daemon

log = get_logger(__name__)

T = TypeVar("T")

_STORE_S: Final = 10.0
"""Time limit for a look into the model store."""
_MOST_LOOKS: Final = 4
"""Looks at a time: those into a store that hangs go on, each in its thread."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What a person confirmed: who, why, and the generation that they saw (0: no release yet)."""

    by: str
    why: str
    generation: int


class ReleaseChanges:
    """Looks into the store and publishes release states, by the functions of the commands."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._looks = 0

    def has_store(self, name: str) -> bool:
        return bool(self._settings.for_model(name).model.store)

    async def versions(self, name: str) -> list[int]:
        """Return the versions in the store, the newest first. Raises MurmuraError."""
        return await self._look(lambda: open_store(self._settings, name).versions(name)[::-1])

    async def describe(self, name: str, version: int) -> ModelManifest:
        """Return the manifest of a version in the store. Raises MurmuraError."""
        return await self._look(lambda: open_store(self._settings, name).describe(name, version))

    async def release(self, name: str, version: int, confirmed: Confirmed) -> ReleaseState:
        """Make a version current. Raises Refused."""

        def make() -> Change:
            store = open_store(self._settings, name)
            return make_release(store, name, version, by=confirmed.by, why=confirmed.why, at=_now())

        return await self._publish(name, make, confirmed)

    async def roll_back(self, name: str, confirmed: Confirmed) -> ReleaseState:
        """Make the version before the current one current again. Raises Refused."""
        change = make_rollback(self._settings, name, by=confirmed.by, why=confirmed.why, at=_now())
        return await self._publish(name, lambda: change, confirmed)

    async def stop(self, name: str, confirmed: Confirmed) -> ReleaseState:
        """End the experiment or the shadow of a model. Raises Refused."""
        change = make_stop(name, by=confirmed.by, why=confirmed.why, at=_now())
        return await self._publish(name, lambda: change, confirmed)

    async def _publish(self, name: str, make: Callable[[], Change], confirmed: Confirmed) -> ReleaseState:
        try:
            change = await self._look(make)
            _, state = await publish_next(
                self._settings,
                name,
                _unless_changed(change, name, confirmed.generation),
                on_lost_event=lambda: log.warning("the event of a release was not taken", name=name),
                patience_s=_STORE_S,
            )
        except OutcomeUnknown as error:
            raise Refused(HTTPStatus.GATEWAY_TIMEOUT, f"Look at the history before you try again: {error}.") from None
        except MurmuraError as error:
            raise Refused(HTTPStatus.CONFLICT, f"Nothing was changed: {error}.") from None
        if state is None:
            raise Refused(HTTPStatus.CONFLICT, "Nothing was changed: this version is the current one already.")
        log.info("release", name=name, version=state.current.version, generation=state.generation, by=confirmed.by)
        return state

    async def _look(self, read: Callable[[], T]) -> T:
        if self._looks >= _MOST_LOOKS:
            raise SetupError(f"the model store has not answered {_MOST_LOOKS} looks so far")
        self._looks += 1
        looking = run_in_daemon(read)
        looking.add_done_callback(self._note_looked)
        try:
            async with asyncio.timeout(_STORE_S):
                return await asyncio.shield(looking)
        except TimeoutError:
            raise SetupError(f"the model store did not answer within {_STORE_S:g} s") from None

    def _note_looked(self, looking: asyncio.Future[Any]) -> None:
        self._looks -= 1
        if not looking.cancelled():
            looking.exception()  # nobody may wait for it any more


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _unless_changed(change: Change, name: str, generation: int) -> Change:
    def checked(state: ReleaseState | None) -> ReleaseState | None:
        found = state.generation if state else 0
        if found != generation:
            by = f" by {state.history[-1].by}" if state and state.history else ""
            raise SetupError(
                f"{name} is at generation {found}{by} by now, and {generation} was shown: look again, and confirm anew"
            )
        return change(state)

    return checked
