"""The states of all conversations of our partitions, in memory, as they lie in the changelog."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from ...runtime.errors import Closed

QUIET_S: Final = 60.0
"""A conversation that was touched in this process so recently is not ended, whatever the turns' timestamps say."""
ENDINGS: Final = 10
"""At most so many conversations are ended with one turn."""

Place = tuple[int, bytes]
"""Partition and key."""


class Kept(NamedTuple):
    """One conversation: the record's value and what has to be known without reading it."""

    value: bytes
    number: int
    at: int
    """When its last turn was, in milliseconds since 1970."""
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
    """Say whether a state that lies behind another in the changelog is the older of the two.

    Of turns of one topic the later has the higher offset, unless the topic was made anew: then times and numbers have
    gone on. The number alone does not tell, since a conversation that was forgotten begins at 1 again.
    """
    here, there = state.source, known.source
    if here.topic == there.topic and here.offset != there.offset:
        made_anew = state.number > known.number and _newest(state) > _newest(known)
        return here.offset < there.offset and not made_anew
    return state.number < known.number


def _newest(state: _Peek) -> int:
    return max(state.newest, state.source.timestamp)


class Conversations:
    """Owns what is known of conversations between their turns. One for each assignment.

    Invariants:
    - a state is kept as its record's bytes: it weighs what the record weighs, and is read as a restart would read it;
    - a partition keeps at most `most` conversations, so what is kept does not depend on who has which partitions;
    - a conversation that is being answered is not ended, and one that is being ended is not answered before its
      tombstone has been acknowledged: the changelog's last record is the last thing that happened.
    """

    def __init__(self, most: int, expiry_ms: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._expiry_ms, self._clock = most, expiry_ms, clock
        self._kept: dict[int, OrderedDict[bytes, Kept]] = {}
        """By partition, the one that was silent for longest first."""
        self._newest: dict[int, int] = {}
        self._busy: set[Place] = set()
        self._ending: dict[Place, asyncio.Event] = {}
        self._given_up: set[Place] = set()
        self._seen: dict[Place, _Peek] = {}
        """While restoring: what is kept, as far as it decides which state is the later."""
        self._late: set[Place] = set()
        self.unreadable = 0

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    # -- from the changelog ------------------------------------------------------------------------------------------

    def restore(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        """Take one record of the changelog, in its order.

        A process that was taken for dead may have written late, so the last state is not always the newest. What cannot
        be read takes what was known of the conversation with it.
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

    def restored(self, now_ms: int) -> list[tuple[Place, bytes]]:
        """Put the conversations in the order in which they fell silent, once all of them are there.

        Returns those whose newest state is not the last of the changelog. Compaction would leave the older one alone, so
        they are to be written once more.
        """
        for partition, kept in self._kept.items():
            # A time that lies ahead would keep a conversation for ever.
            inside = ((key, one._replace(at=min(one.at, now_ms))) for key, one in kept.items())
            self._kept[partition] = OrderedDict(sorted(inside, key=lambda item: item[1].at))
        late = [((number, key), self._kept[number][key].value) for number, key in sorted(self._late)]
        self._late.clear()
        self._seen.clear()
        return late

    # -- a turn ------------------------------------------------------------------------------------------------------

    async def enter(self, place: Place) -> Kept | None:
        """Begin a turn and return what is known; `leave` when it is finished.

        Raises Closed when the conversation's last record was not acknowledged and nobody knows what there is of it.
        """
        while (ending := self._ending.get(place)) is not None:
            await ending.wait()
        if place in self._given_up:
            raise Closed("the conversation goes on after the next assignment")
        self._busy.add(place)
        partition, key = place
        kept = self._kept.get(partition)
        return None if kept is None else kept.get(key)

    def put(self, place: Place, value: bytes, number: int, at: int) -> None:
        """Keep what is known after a turn."""
        partition, key = place
        kept = self._kept.setdefault(partition, OrderedDict())
        kept[key] = Kept(value, number, at, self._clock())
        kept.move_to_end(key)
        self._newest[partition] = max(self._newest.get(partition, 0), at)

    def leave(self, place: Place) -> None:
        self._busy.discard(place)

    # -- ends --------------------------------------------------------------------------------------------------------

    def take_ended(self, partition: int) -> list[Place]:
        """Forget conversations that have expired or are too many, and return them: each wants a tombstone.

        Expired by the partition's own time, the newest turn's timestamp: after an outage turns are waiting that came
        in time. Tell `acknowledged` when the tombstones are written.
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
        for key, one in kept.items():
            expired = one.at < horizon and one.touched < quiet_since
            if found == ENDINGS or not (expired or found < surplus):
                return
            if (partition, key) not in self._busy:
                found += 1
                yield key

    def acknowledged(self, places: Iterable[Place]) -> None:
        for place in places:
            if (ending := self._ending.pop(place, None)) is not None:
                ending.set()

    def give_up(self, places: Iterable[Place]) -> None:
        """Answer nothing more in these conversations: what was sent for them last was not acknowledged."""
        for place in places:
            self._given_up.add(place)
            if (ending := self._ending.pop(place, None)) is not None:
                ending.set()
