"""Serves an earlier version while the device fails with the current one, in this process only: the release state stays."""

import asyncio
import time
from typing import Final, Protocol

from ...schemas.release import Release, ReleaseState
from ...schemas.serving_event import ServingEventKind
from ..observe.logs import get_logger
from ..output.serving_events import ServingEvents
from .first_model import newest_first
from .staging import Stages, make_refusal
from .watcher import Slot

log = get_logger(__name__)

_CHECK_S: Final = 0.5
FAILED_PROBES: Final = 3
"""Number of failed probes of the serving version after which an earlier one is tried."""
_VERSIONS: Final = 3
"""Maximum number of earlier versions to try."""


class Device(Protocol):
    """The state of the device, and what this model's versions did on it; see `Engine`."""

    @property
    def trouble(self) -> str | None: ...
    @property
    def failed_probes(self) -> int: ...


class Releases(Protocol):
    """The released and the serving version; see `ReleaseWatcher`."""

    @property
    def state(self) -> ReleaseState | None: ...

    serves: Release | None


class FallBack:
    """Tries once per failure of the device whether an earlier version works on it.

    Invariants:
    - an earlier version serves only when it has passed every check on this device while the current one fails;
    - the next release, or the same one again, is handled as usual.
    """

    def __init__(
        self, name: str, loader: Stages, slot: Slot, device: Device, releases: Releases, events: ServingEvents
    ) -> None:
        self._name = name
        self._loader, self._slot = loader, slot
        self._device, self._releases = device, releases
        self._events = events

    async def run(self) -> None:
        """Watch the device until cancelled."""
        tried = False
        while True:
            await asyncio.sleep(_CHECK_S)
            if self._device.trouble is None:
                tried = False
            elif not tried and self._device.failed_probes >= FAILED_PROBES:
                tried = True
                await self._try_versions_before()

    async def _try_versions_before(self) -> None:
        state, serves = self._releases.state, self._releases.serves
        if state is None or serves is None:
            return
        began = time.monotonic()
        for release in [r for r in newest_first(state) if r != serves][:_VERSIONS]:
            try:
                model = await self._loader.stage(self._name, release)
            except Exception as error:  # noqa: BLE001  (`make_refusal` logs unexpected errors)
                refusal = make_refusal(error)
                log.error("a version before does not answer either", version=release.version, why=refusal.message)
                continue
            why, failing = self._device.trouble, self._slot.model.manifest.version
            if why is None or self._releases.serves != serves:
                return  # the device answers again, or another release serves
            self._slot.put(model)
            self._releases.serves = release
            log.error("the version before serves", version=release.version, instead_of=failing, why=why)
            self._events.emit(
                ServingEventKind.MODEL_FELL_BACK,
                name=self._name,
                version=release.version,
                previous=failing,
                generation=state.generation,
                message=why,
                seconds=round(time.monotonic() - began, 3),
            )
            return
