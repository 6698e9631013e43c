"""Serves the version before while the device fails with the current one: here alone, the release state stays as it is."""

import asyncio
import time
from typing import Final, Protocol

from ...schemas.release import Release, ReleaseState
from ...schemas.serving_event import ServingEventKind
from ..observe.logs import get_logger
from ..output.serving_events import ServingEvents
from .first_model import newest_first
from .staging import Stages, refusal_of
from .watcher import Slot

log = get_logger(__name__)

_LOOK_S: Final = 0.5
FAILED_PROBES: Final = 3
"""After so many a device is not expected back in a moment."""
_VERSIONS: Final = 3
"""So many versions before the current one are tried."""


class Device(Protocol):
    """What is known of the device; see `Engine`."""

    @property
    def trouble(self) -> str | None: ...
    @property
    def failed_probes(self) -> int: ...


class Releases(Protocol):
    """What is released, and what of it serves; see `ReleaseWatcher`."""

    @property
    def state(self) -> ReleaseState | None: ...

    serves: Release | None


class FallBack:
    """Tries once for each failure of the device whether a version before answers on it.

    Invariants:
    - a version serves only when it has passed every check on this device while the current one fails its own;
    - the next release, or the same one again, is considered as ever.
    """

    def __init__(
        self, name: str, loader: Stages, slot: Slot, device: Device, releases: Releases, events: ServingEvents
    ) -> None:
        self._name = name
        self._loader, self._slot = loader, slot
        self._device, self._releases = device, releases
        self._events = events

    async def run(self) -> None:
        """Watch the device for ever."""
        tried = False
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._device.failed_probes < FAILED_PROBES:
                tried = False
            elif not tried:
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
            except Exception as error:  # noqa: BLE001  (`refusal_of` logs what is nobody's verdict)
                refusal = refusal_of(error)
                log.error("a version before does not answer either", version=release.version, why=refusal.message)
                continue
            why, failing = self._device.trouble, self._slot.model.manifest.version
            if why is None or self._releases.serves != serves:
                return  # the device answers again, or another release has taken the place
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
