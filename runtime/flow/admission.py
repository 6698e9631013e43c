"""Fair queueing between topics, and between the partitions of a topic, when more records wait than the model can take.

Pure: no clock, no I/O. The batcher after it is first in, first out, so the order is decided here only.
"""

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Lane = TypeVar("Lane", bound=Hashable)


Waiting = tuple[Item, int, int]
"""An item with its cost: tokens of the model, bytes of memory."""


class _Used:
    """What a lane holds, in the queues of all topics."""

    __slots__ = ("bytes", "queues", "tokens")

    def __init__(self) -> None:
        self.queues = self.tokens = self.bytes = 0


class _Queue(Generic[Item]):
    """What waits of a topic in a lane."""

    __slots__ = ("items", "used")

    def __init__(self, used: _Used) -> None:
        self.items: deque[Waiting[Item]] = deque()
        self.used = used
        """Of its lane."""


class _Group:
    """Topics that are served apart from others, because another model answers them."""

    __slots__ = ("debts", "topics", "visits")

    def __init__(self) -> None:
        self.topics: deque[str] = deque()
        self.visits = 0
        self.debts: dict[str, tuple[int, int]] = {}
        """By topic: overdrawn tokens, and the value of `visits` at that time; only while other topics wait."""


class Admission(Generic[Lane, Item]):
    """Bounded queues, one per lane (a partition) and topic, served by weighted round robin over topics and then over lanes.

    Turns are counted in tokens. A visit to a topic lets one of its lanes spend `quantum x weight` tokens; the topic's next
    visit goes to its next lane. A record is never split, so the last one may overdraw. The excess is subtracted from the
    topic's next visits while other topics wait, so a topic of long texts gets no more tokens than one of short texts. An
    empty topic accumulates no credit. Each group of topics has turns of its own. A lane of several topics (of retries) has
    a queue for each, so that no model's records wait behind another's; its limits hold for all of them together.

    Invariants:
    - records of one lane and topic leave in the order of their arrival;
    - between two visits of a topic, every other topic with records is visited once, or pays off its debt; the lanes of a
      topic are visited in turn;
    - `tokens` and `bytes` are the sums over all waiting records; a lane without records uses no memory;
    - if no more than `bytes_left` is added to a lane, it never holds more than `lane_bytes`, or one larger record.
    """

    def __init__(
        self,
        *,
        quantum: int = 256,
        lane_limit: int = 16_384,
        lane_bytes: int = 16 * 1024 * 1024,
        weights: Mapping[str, int] | None = None,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        """`groups`: the group of a topic; without one it is in the group ``."""
        self.quantum = quantum
        self.lane_limit = lane_limit
        """Tokens at which a lane is full; it has room again at half of that."""
        self.lane_bytes = lane_bytes
        """Bytes at which a lane is full; it has room again at half of that. May be changed at any time."""
        self.tokens = 0
        self.bytes = 0
        self._weights = dict(weights or {})
        self._queues: dict[tuple[str, Lane], _Queue[Item]] = {}
        self._used: dict[Lane, _Used] = {}
        self._lanes: dict[str, deque[Lane]] = {}
        self._group_names = dict(groups or {})
        self._groups: dict[str, _Group] = {}

    def __len__(self) -> int:
        return sum(len(queue.items) for queue in self._queues.values())

    def bytes_in(self, lane: Lane) -> int:
        """Return the bytes that wait in a lane."""
        used = self._used.get(lane)
        return 0 if used is None else used.bytes

    def bytes_left(self, lane: Lane, elsewhere: int = 0) -> int:
        """Return the bytes that a lane still takes. An empty lane also takes one record of any size.

        `elsewhere`: bytes of the lane's share that are in use outside of this queue.
        """
        return self.lane_bytes - elsewhere - self.bytes_in(lane)

    def add(self, topic: str, lane: Lane, items: Sequence[Waiting[Item]]) -> None:
        """Append `(item, tokens, bytes)` to a lane."""
        if not items:
            return
        queue = self._queues.get((topic, lane))
        if queue is None:
            queue = self._queues[topic, lane] = _Queue(self._used.setdefault(lane, _Used()))
            queue.used.queues += 1
            self._enter(topic, lane)
        tokens = size = 0
        for _, item_tokens, item_bytes in items:
            tokens += item_tokens
            size += item_bytes
        queue.items.extend(items)
        queue.used.tokens += tokens
        queue.used.bytes += size
        self.tokens += tokens
        self.bytes += size

    def is_full(self, lane: Lane, elsewhere: int = 0) -> bool:
        """Return whether a lane has reached a limit, so that its partition must be paused. An empty lane never has."""
        used = self._used.get(lane)
        return used is not None and (used.tokens >= self.lane_limit or used.bytes >= self.lane_bytes - elsewhere)

    def has_room(self, lane: Lane, elsewhere: int = 0) -> bool:
        """Return whether a lane that was full may be filled again: at half of both limits."""
        used = self._used.get(lane)
        return used is None or (
            used.tokens <= self.lane_limit // 2 and used.bytes <= (self.lane_bytes - elsewhere) // 2
        )

    def take(self, tokens: int, most: int, most_bytes: int, group: str = "") -> list[Item]:
        """Remove and return records, fairly from all topics of a group and their lanes, until `tokens`, `most` records or `most_bytes` are
        used up. The last record may exceed tokens and bytes.
        """
        taken: list[Item] = []
        left, held = tokens, self.bytes
        turns = self._groups.get(group, _Group())
        while left > 0 and len(taken) < most and held - self.bytes < most_bytes and turns.topics:
            topic = turns.topics[0]
            allowed = self._allowance(topic, turns)
            turns.visits += 1
            turns.topics.rotate(-1)
            if allowed <= 0:
                continue
            lanes = self._lanes[topic]
            lane = lanes[0]
            queue = self._queues[topic, lane]
            spent = self._serve(queue, min(left, allowed), most - len(taken), most_bytes - (held - self.bytes), taken)
            left -= spent
            if spent > allowed:
                turns.debts[topic] = spent - allowed, turns.visits
            lanes.rotate(-1)
            if not queue.items:
                self._leave(topic, lane, turns)
        return taken

    def rename(self, lane: Lane, name: Lane) -> bool:
        """Rename a lane; False, without a change, if the new name is in use."""
        if name in self._used:
            return False
        if (used := self._used.pop(lane, None)) is not None:
            self._used[name] = used
            for topic in [topic for topic, other in self._queues if other == lane]:
                self._queues[topic, name] = self._queues.pop((topic, lane))
                lanes = self._lanes[topic]
                lanes[lanes.index(lane)] = name
        return True

    def clear(self) -> int:
        """Drop all waiting records (they will be delivered again); returns their number."""
        count = len(self)
        self._queues.clear()
        self._used.clear()
        self._lanes.clear()
        self._groups.clear()
        self.tokens = self.bytes = 0
        return count

    def _allowance(self, topic: str, group: _Group) -> int:
        """Return the tokens that a topic may spend at this visit, less its debt; 0 while the debt exceeds its share."""
        share = self.quantum * self._weights.get(topic, 1)
        debt, since = group.debts.pop(topic, (0, 0))
        topics = len(group.topics)
        if not debt or topics == 1:
            return share
        # Rounds without records of the topic also reduce its debt.
        left = debt - share * max((group.visits - since) // topics, 1)
        if left > 0:
            group.debts[topic] = left, group.visits
            return 0
        return min(-left, share)

    def _serve(self, queue: _Queue[Item], spend: int, most: int, most_bytes: int, taken: list[Item]) -> int:
        spent = count = size = 0
        items = queue.items
        while items and spent < spend and count < most and size < most_bytes:
            item, tokens, item_bytes = items.popleft()
            taken.append(item)
            spent += tokens
            size += item_bytes
            count += 1
        queue.used.tokens -= spent
        queue.used.bytes -= size
        self.tokens -= spent
        self.bytes -= size
        return spent

    def _enter(self, topic: str, lane: Lane) -> None:
        lanes = self._lanes.get(topic)
        if lanes is None:
            lanes = self._lanes[topic] = deque()
            self._groups.setdefault(self._group_names.get(topic, ""), _Group()).topics.append(topic)
        lanes.append(lane)

    def _leave(self, topic: str, lane: Lane, group: _Group) -> None:
        used = self._queues.pop((topic, lane)).used
        used.queues -= 1
        if not used.queues:
            del self._used[lane]
        lanes = self._lanes[topic]
        lanes.remove(lane)
        if not lanes:
            del self._lanes[topic]
            group.topics.remove(topic)
            if not group.topics:
                group.debts.clear()
