"""Bounds the records that a handler works on: in number, and in bytes together with all others of the process."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...output.bounds import UnderWay


class HandlerSlots:
    """Counts the records that a handler works on.

    Invariants:
    - at most `most` records are worked on, and no more bytes than the process allows, or one record;
    - a record that waits for its suspended handler, or pauses before its next attempt, does not count;
    - after a wait, records continue in the order in which their waits ended, and before new records.
    """

    def __init__(self, under_way: UnderWay, most: int) -> None:
        self._under_way, self._most = under_way, most
        self._records = 0
        self._returning: deque[tuple[asyncio.Future[None], Slot]] = deque()

    @property
    def has_room(self) -> bool:
        """Return whether a new record may start. Call `admit_returning` first."""
        return self._records < self._most and (self._under_way.bytes_left > 0 or not self._records)

    def take(self, size: int) -> "Slot":
        """Count a new record of `size` bytes."""
        slot = Slot(self, size)
        self.enter(slot)
        return slot

    def admit_returning(self, *, all_of_them: bool = False) -> None:
        """Let records whose wait is over continue: as many as there is room for, or all, to end an assignment."""
        while self._returning and (all_of_them or self.has_room):
            future, slot = self._returning.popleft()
            if not future.done():
                self.enter(slot)
                future.set_result(None)

    async def wait_for_room(self, slot: "Slot") -> None:
        """Wait until a record whose wait is over counts again."""
        if not self._returning and self.has_room:
            self.enter(slot)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._returning.append((future, slot))
        await future

    def enter(self, slot: "Slot") -> None:
        if not slot.counts:
            slot.counts = True
            self._records += 1
            self._under_way.begin(slot.size)

    def leave(self, slot: "Slot") -> None:
        if slot.counts:
            slot.counts = False
            self._records -= 1
            self._under_way.end(slot.size)


class Slot:
    """The place of one record among those that its handler works on."""

    __slots__ = ("_slots", "counts", "size")

    def __init__(self, slots: HandlerSlots, size: int) -> None:
        self._slots, self.size = slots, size
        self.counts = False

    def release(self) -> None:
        """Stop counting the record, which has ended."""
        self._slots.leave(self)

    @asynccontextmanager
    async def given_back(self) -> AsyncIterator[None]:
        """Do not count the record while the block runs; after it, wait for room. A block that raises does not wait."""
        self._slots.leave(self)
        try:
            yield
            await self._slots.wait_for_room(self)
        finally:
            self._slots.enter(self)
