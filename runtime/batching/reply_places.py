"""Limits how many replies are on their way to their first step."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

_ROWS_PER_PLACE: Final = 4
_LEAST_PLACES: Final = 2


class ReplyPlaces:
    """A place for each reply between its admission and its first step; others wait, first come, first served.

    Texts wait behind the turns of these replies, and what is remembered of the turns takes memory, so the places are few. Replies
    that are decoded have rows, not places.
    """

    def __init__(self, rows: int) -> None:
        """`rows`: replies that are decoded together."""
        self.count = max(rows // _ROWS_PER_PLACE, _LEAST_PLACES)
        self._free = asyncio.Semaphore(self.count)

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[Callable[[], None]]:
        """Wait for a place. Yields what gives it back early; at the end of the context it is given back in any case."""
        await self._free.acquire()
        held = True

        def leave() -> None:
            nonlocal held
            if held:
                held = False
                self._free.release()

        try:
            yield leave
        finally:
            leave()
