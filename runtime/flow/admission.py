"""Who goes next: fairness between topics, and between the partitions of a topic, when more waits than the model can take.

Pure: no clock, no I/O. The batcher behind it is first in, first out; that is why order is decided here and nowhere else.
"""

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Lane = TypeVar("Lane", bound=Hashable)


Waiting = tuple[Item, int, int]
"""An item with what it costs: tokens of the model, bytes of this process's memory."""


class _Queue(Generic[Item]):
    __slots__ = ("bytes", "items", "tokens")

    def __init__(self) -> None:
        self.items: deque[Waiting[Item]] = deque()
        self.tokens = 0
        self.bytes = 0


class Admission(Generic[Lane, Item]):
    """Bounded queues, one per lane (a partition), served by weighted round robin over topics and then over lanes.

    Turns are counted in tokens. A visit to a topic lets one of its lanes spend `quantum x weight` tokens; the topic's next
    visit goes to its next lane. A record is never split, so the last one may overdraw: that is taken off the topic's next
    visits, as long as others wait. So a topic of texts that cost many quanta gets no more tokens than one of short texts.
    Whoever waits for nothing saves nothing up.

    Invariants:
    - records of one lane leave in the order in which they came;
    - between two visits of a topic, every other topic that has records is visited once, or pays for what it overdrew; the
      lanes of a topic are visited in turn;
    - `tokens` and `bytes` are the sums over all waiting records; a lane without records costs nothing;
    - a lane to which no more than `bytes_left` is added never holds more than `lane_bytes`, or one record that is larger.
    """

    def __init__(
        self,
        *,
        quantum: int = 256,
        lane_limit: int = 16_384,
        lane_bytes: int = 16 * 1024 * 1024,
        weights: Mapping[str, int] | None = None,
    ) -> None:
        self.quantum = quantum
        self.lane_limit = lane_limit
        """Tokens from which on a lane is full; it has room again at half of it."""
        self.lane_bytes = lane_bytes
        """What a lane may hold; it has room again at half of it. May be changed at any time."""
        self.tokens = 0
        self.bytes = 0
        self._weights = dict(weights or {})
        self._queues: dict[Lane, _Queue[Item]] = {}
        self._lanes: dict[str, deque[Lane]] = {}
        self._topics: deque[str] = deque()
        self._visits = 0
        self._debts: dict[str, tuple[int, int]] = {}
        """Tokens by which a topic has overdrawn, and the number of visits when that was noted; only while others wait."""

    def __len__(self) -> int:
        return sum(len(queue.items) for queue in self._queues.values())

    def bytes_left(self, lane: Lane) -> int:
        """Return how many bytes a lane still takes. One that holds nothing takes any one record besides."""
        queue = self._queues.get(lane)
        return self.lane_bytes - (0 if queue is None else queue.bytes)

    def add(self, topic: str, lane: Lane, items: Sequence[Waiting[Item]]) -> None:
        """Append `(item, tokens, bytes)` to a lane."""
        if not items:
            return
        queue = self._queues.get(lane)
        if queue is None:
            queue = self._queues[lane] = _Queue()
            self._enter(topic, lane)
        tokens = size = 0
        for _, item_tokens, item_bytes in items:
            tokens += item_tokens
            size += item_bytes
        queue.items.extend(items)
        queue.tokens += tokens
        queue.bytes += size
        self.tokens += tokens
        self.bytes += size

    def is_full(self, lane: Lane) -> bool:
        """Say whether a lane holds as much as it may, so that its partition is to be paused."""
        queue = self._queues.get(lane)
        return queue is not None and (queue.tokens >= self.lane_limit or queue.bytes >= self.lane_bytes)

    def has_room(self, lane: Lane) -> bool:
        """Say whether a lane that was full may be filled again: at half of both limits, so that it is worth a fetch."""
        queue = self._queues.get(lane)
        return queue is None or (queue.tokens <= self.lane_limit // 2 and queue.bytes <= self.lane_bytes // 2)

    def take(self, tokens: int, most: int, most_bytes: int) -> list[Item]:
        """Take records fairly from all topics and lanes until one of `tokens`, `most` records and `most_bytes` is used up.

        The last record may overdraw tokens and bytes.
        """
        taken: list[Item] = []
        left, held = tokens, self.bytes
        while left > 0 and len(taken) < most and held - self.bytes < most_bytes and self._topics:
            topic = self._topics[0]
            allowed = self._allowed(topic)
            self._visits += 1
            self._topics.rotate(-1)
            if allowed <= 0:
                continue
            lanes = self._lanes[topic]
            lane = lanes[0]
            queue = self._queues[lane]
            spent = self._serve(queue, min(left, allowed), most - len(taken), most_bytes - (held - self.bytes), taken)
            left -= spent
            if spent > allowed:
                self._debts[topic] = spent - allowed, self._visits
            lanes.rotate(-1)
            if not queue.items:
                self._leave(topic, lane)
        return taken

    def rename(self, topic: str, lane: Lane, name: Lane) -> bool:
        """Let what waits in a lane wait in another one of its topic; False, and nothing changed, where that is in use."""
        if name in self._queues:
            return False
        if (queue := self._queues.pop(lane, None)) is not None:
            self._queues[name] = queue
            lanes = self._lanes[topic]
            lanes[lanes.index(lane)] = name
        return True

    def clear(self) -> int:
        """Forget everything that waits (it will be delivered again); returns how many records that were."""
        count = len(self)
        self._queues.clear()
        self._lanes.clear()
        self._topics.clear()
        self._debts.clear()
        self.tokens = self.bytes = 0
        return count

    def _allowed(self, topic: str) -> int:
        """Return what a topic may spend at this visit, and take that off its debt; not above 0 while it has to wait."""
        share = self.quantum * self._weights.get(topic, 1)
        debt, since = self._debts.pop(topic, (0, 0))
        topics = len(self._topics)
        if not debt or topics == 1:
            return share
        # Rounds that went by while the topic had no records have paid, too.
        left = debt - share * max((self._visits - since) // topics, 1)
        if left > 0:
            self._debts[topic] = left, self._visits
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
        queue.tokens -= spent
        queue.bytes -= size
        self.tokens -= spent
        self.bytes -= size
        return spent

    def _enter(self, topic: str, lane: Lane) -> None:
        lanes = self._lanes.get(topic)
        if lanes is None:
            lanes = self._lanes[topic] = deque()
            self._topics.append(topic)
        lanes.append(lane)

    def _leave(self, topic: str, lane: Lane) -> None:
        del self._queues[lane]
        lanes = self._lanes[topic]
        lanes.remove(lane)
        if not lanes:
            del self._lanes[topic]
            self._topics.remove(topic)
            if not self._topics:
                self._debts.clear()
