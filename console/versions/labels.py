"""Gives the review queue the labels of the released versions in a store, and those of the next when one is released."""

import asyncio
import time
from typing import Final

from ...runtime.errors import MurmuraError
from ...runtime.observe.logs import get_logger
from ...schemas.release import Release
from ..review.live import LiveReviews
from ..review.tasks import describe_tasks
from .changes import ReleaseChanges
from .index import VersionIndex

log = get_logger(__name__)

_PAUSE_S: Final = 1.0
_AGAIN_S: Final = 10.0
"""Pause before the same release is looked for again."""


class ReleasedLabels:
    """A task that a newer version lacks stays: texts about it may still wait."""

    def __init__(self, reviews: LiveReviews, index: VersionIndex, changes: ReleaseChanges) -> None:
        self._reviews, self._index, self._changes = reviews, index, changes
        self._known: dict[str, Release] = {}
        self._missed: dict[str, tuple[Release, float]] = {}
        """Releases that the store did not have, with when they are looked for again."""

    async def run(self) -> None:
        """Look for releases until cancelled; a store that is away is asked again."""
        while True:
            await self.look()
            await asyncio.sleep(_PAUSE_S)

    async def look(self) -> None:
        """Read the manifests of versions that are new here."""
        for name, state in list(self._index.states.items()):
            missed, again_at = self._missed.get(name, (None, 0.0))
            waits = missed == state.current and time.monotonic() < again_at
            if waits or self._known.get(name) == state.current or not self._changes.has_store(name):
                continue
            try:
                manifest = await self._changes.describe(name, state.current.version)
            except MurmuraError as error:
                self._missed[name] = state.current, time.monotonic() + _AGAIN_S
                log.warning("labels of a release cannot be read, trying again", name=name, why=str(error))
                continue
            self._reviews.tasks.update(describe_tasks(manifest.tasks))
            self._known[name] = state.current
            self._reviews.labelled.set()
