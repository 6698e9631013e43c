"""The states of all conversations of the assigned partitions, in memory, as bytes of their changelog records."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from ...runtime.errors import Closed

QUIET_S: Final = 60.0
"""A conversation that this process updated within this time is not ended, regardless of the turns' timestamps."""
ENDINGS: Final = 10
"""Maximum number of conversations that one turn ends."""

Place = tuple[int, bytes]
"""Partition and key."""


class Kept(NamedTuple):
    """One conversation: the record's value, and the fields needed without parsing it."""

    value: bytes
    number: int
    at: int
    """Time of its last turn in milliseconds since 1970."""
    touched: float


class _Source(msgspec.Struct):
    timestamp: int
    topic: str = ""
    offset: int = -1


class _Peek(msgspec.Struct):
    number: int
    source: _Source
    newest: int = 0


_peek: Final = msgspec.json.Decoder(_Peek).decode


def _is_late(state: _Peek, known: _Peek) -> bool:
    """Return whether `state`, which follows `known` in the changelog, is the older of the two.

    Within one topic the later turn has the higher offset, unless the topic was recreated: then time and number are higher.
    The number alone does not decide, since a deleted conversation restarts at 1.
    """
    state_source, known_source = state.source, known.source
    if state_source.topic == known_source.topic and state_source.offset != known_source.offset:
        is_new_log = state.number > known.number and _newest(state) > _newest(known)
        return state_source.offset < known_source.offset and not is_new_log
    return state.number < known.number


def _newest(state: _Peek) -> int:
    return max(state.newest, state.source.timestamp)


class Conversations:
    """Owns the states of conversations between their turns. One instance per assignment.

    Invariants:
    - a state is kept as its record's bytes: it takes the record's memory, and is parsed as after a restart;
    - a partition keeps at most `most` conversations, so the kept ones do not depend on the assignment of partitions;
    - a conversation with a turn in progress is not ended, and one that is being ended is not answered before its
      tombstone is acknowledged: the changelog's last record is always the latest.
    """

    def __init__(self, most: int, expiry_ms: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._expiry_ms, self._clock = most, expiry_ms, clock
        self._kept: dict[int, OrderedDict[bytes, Kept]] = {}
        """By partition, the least recently active first."""
        self._newest: dict[int, int] = {}
        self._busy: set[Place] = set()
        self._ending: dict[Place, asyncio.Event] = {}
        self._given_up: set[Place] = set()
        self._seen: dict[Place, _Peek] = {}
        """During restore: the fields of the kept states that decide which state is later."""
        self._late: set[Place] = set()
        self.unreadable = 0

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    # -- from the changelog ------------------------------------------------------------------------------------------

    def restore(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        """Apply one record of the changelog, in its order.

        A process that the group considered dead may have written late, so the last state is not always the newest. An
        unreadable state deletes the conversation.
        """
        if key is None:
            self.unreadable += 1
            return
        place = partition, key
        state = None if value is None else self._read(value)
        if value is None or state is None:
            self._kept.setdefault(partition, OrderedDict()).pop(key, None)
            self._seen.pop(place, None)
        elif place in self._seen and _is_late(state, self._seen[place]):
            self._late.add(place)
            return
        else:
            kept = self._kept.setdefault(partition, OrderedDict())
            kept[key] = Kept(value, state.number, state.source.timestamp, self._clock())
            self._seen[place] = state
        self._late.discard(place)

    def _read(self, value: bytes) -> _Peek | None:
        try:
            return _peek(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.unreadable += 1
            return None

    def finish_restore(self, now_ms: int) -> list[tuple[Place, bytes]]:
        """Finish the restore: sort the conversations by their last turn.

        Returns those whose newest state is not the last in the changelog. Compaction would keep only the older one, so the
        caller must write them again.
        """
        for partition, kept in self._kept.items():
            # A time in the future would keep a conversation forever.
            clamped = ((key, item._replace(at=min(item.at, now_ms))) for key, item in kept.items())
            self._kept[partition] = OrderedDict(sorted(clamped, key=lambda item: item[1].at))
        late = [((number, key), self._kept[number][key].value) for number, key in sorted(self._late)]
        self._late.clear()
        self._seen.clear()
        return late

    # -- a turn ------------------------------------------------------------------------------------------------------

    async def enter(self, place: Place) -> Kept | None:
        """Start a turn and return the kept state; call `leave` when the turn is finished.

        Raises Closed when the conversation's last record was not acknowledged, so that its state in the log is unknown.
        """
        while (ending := self._ending.get(place)) is not None:
            await ending.wait()
        if place in self._given_up:
            raise Closed("the conversation continues after the next assignment")
        self._busy.add(place)
        partition, key = place
        kept = self._kept.get(partition)
        return None if kept is None else kept.get(key)

    def put(self, place: Place, value: bytes, number: int, at: int) -> None:
        """Keep the state after a turn."""
        partition, key = place
        kept = self._kept.setdefault(partition, OrderedDict())
        kept[key] = Kept(value, number, at, self._clock())
        kept.move_to_end(key)
        self._newest[partition] = max(self._newest.get(partition, 0), at)

    def leave(self, place: Place) -> None:
        self._busy.discard(place)

    # -- ends --------------------------------------------------------------------------------------------------------

    def take_ended(self, partition: int) -> list[Place]:
        """Delete expired and surplus conversations, and return them: each needs a tombstone.

        They expire by the timestamp of the partition's newest turn, not by the clock: after an outage turns are waiting
        that were sent in time. Call `mark_acknowledged` when the tombstones are written.
        """
        ended: list[Place] = []
        kept = self._kept.get(partition, OrderedDict())
        for key in list(self._front(kept, partition)):
            del kept[key]
            ended.append((partition, key))
            self._ending[partition, key] = asyncio.Event()
        return ended

    def _front(self, kept: OrderedDict[bytes, Kept], partition: int) -> Iterable[bytes]:
        horizon = self._newest.get(partition, 0) - self._expiry_ms
        quiet_since = self._clock() - QUIET_S
        surplus, found = len(kept) - self._most, 0
        for key, item in kept.items():
            expired = item.at < horizon and item.touched < quiet_since
            if found == ENDINGS or not (expired or found < surplus):
                return
            if (partition, key) not in self._busy:
                found += 1
                yield key

    def mark_acknowledged(self, places: Iterable[Place]) -> None:
        for place in places:
            if (ending := self._ending.pop(place, None)) is not None:
                ending.set()

    def give_up(self, places: Iterable[Place]) -> None:
        """Answer no more turns of these conversations: their last record was not acknowledged."""
        for place in places:
            self._given_up.add(place)
            if (ending := self._ending.pop(place, None)) is not None:
                ending.set()
