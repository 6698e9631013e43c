"""Limits how many replies are on their way to their first step."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_ROWS_PER_PLACE: Final = 4
_LEAST_PLACES: Final = 2


class ReplyPlaces:
    """A place for each reply between its admission and its first step; others wait, first come, first served.

    Texts wait behind the turns of these replies, and what is remembered of the turns takes memory, so the places are few. Replies
    that are decoded have rows, not places.

    Invariant: replies with a place and replies with a row are together at most `count` and the rows of all lanes.
    """

    def __init__(self, rows: int) -> None:
        """`rows`: replies that are decoded together."""
        self.count = max(rows // _ROWS_PER_PLACE, _LEAST_PLACES)
        self._free = asyncio.Semaphore(self.count)
        self._owed = 0
        """Places beyond `count` that replies hold which begin again; as many are given back before one is free."""

    @asynccontextmanager
    async def enter(self) -> AsyncIterator["Place"]:
        """Wait for a place. At the end of the context it is given back, if it was not before."""
        await self._free.acquire()
        place = Place(self)
        try:
            yield place
        finally:
            place.close()

    def owe(self) -> None:
        """Give a place to a reply that had one, without a wait: it comes before all who wait."""
        self._owed += 1

    def give_back(self) -> None:
        """Free a place."""
        if self._owed:
            self._owed -= 1
        else:
            self._free.release()


class Place:
    """The place of one reply, which it holds once or not at all."""

    def __init__(self, places: ReplyPlaces) -> None:
        self._places = places
        self._held, self._closed = True, False

    def leave(self) -> None:
        """Give the place back: the reply has begun."""
        if self._held:
            self._held = False
            self._places.give_back()

    def retake(self) -> None:
        """Hold a place again: the reply begins anew. Nothing once nobody waits for it."""
        if not self._held and not self._closed:
            self._held = True
            self._places.owe()

    def close(self) -> None:
        """Give the place back for good."""
        self.leave()
        self._closed = True
