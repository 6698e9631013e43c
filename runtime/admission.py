"""Who goes next: fairness between topics, and between the partitions of a topic, when more waits than the model can take.

Pure: no clock, no I/O. The batcher behind it is first in, first out; that is why order is decided here and nowhere else.
"""

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Lane = TypeVar("Lane", bound=Hashable)


class _Queue(Generic[Item]):
    __slots__ = ("items", "tokens")

    def __init__(self) -> None:
        self.items: deque[tuple[Item, int]] = deque()
        self.tokens = 0


class Admission(Generic[Lane, Item]):
    """Bounded queues, one per lane (a partition), served by weighted round robin over topics and then over lanes.

    The unit is the token. A visit to a topic lets one of its lanes spend `quantum x weight` tokens (a record is never
    split, so the last one may overdraw); the topic's next visit goes to its next lane. Whoever waits for nothing saves
    nothing up.

    Invariants:
    - records of one lane leave in the order in which they came;
    - between two visits of a topic, every other topic that has records is visited once; the same for lanes of a topic;
    - `tokens` is the sum over all waiting records; a lane without records costs nothing.
    """

    def __init__(
        self, *, quantum: int = 256, lane_limit: int = 16_384, weights: Mapping[str, int] | None = None
    ) -> None:
        self.quantum = quantum
        self.lane_limit = lane_limit
        """Tokens from which on a lane is full; it has room again at half of it."""
        self.tokens = 0
        self._weights = dict(weights or {})
        self._queues: dict[Lane, _Queue[Item]] = {}
        self._lanes: dict[str, deque[Lane]] = {}
        self._topics: deque[str] = deque()
        self._full: set[Lane] = set()

    def __len__(self) -> int:
        return sum(len(queue.items) for queue in self._queues.values())

    def add(self, topic: str, lane: Lane, items: Sequence[tuple[Item, int]]) -> bool:
        """Append `(item, tokens)` pairs to a lane; True when it is now full, so that its partition is to be paused."""
        if items:
            queue = self._queues.get(lane)
            if queue is None:
                queue = self._queues[lane] = _Queue()
                self._enter(topic, lane)
            added = sum(tokens for _, tokens in items)
            queue.items.extend(items)
            queue.tokens += added
            self.tokens += added
            if queue.tokens >= self.lane_limit:
                self._full.add(lane)
        return lane in self._full

    def take(self, tokens: int, most: int) -> list[Item]:
        """Take records worth about `tokens` tokens, `most` of them at the most, fairly from all topics and lanes."""
        taken: list[Item] = []
        left = tokens
        while left > 0 and len(taken) < most and self._topics:
            topic = self._topics[0]
            lanes = self._lanes[topic]
            lane = lanes[0]
            queue = self._queues[lane]
            spend = min(left, self.quantum * self._weights.get(topic, 1))
            left -= self._serve(queue, spend, most - len(taken), taken)
            lanes.rotate(-1)
            self._topics.rotate(-1)
            if not queue.items:
                self._leave(topic, lane)
        return taken

    def reopened(self) -> list[Lane]:
        """Return the lanes that were full and have room again; each is told once."""
        half = self.lane_limit // 2
        open_again = [lane for lane in self._full if lane not in self._queues or self._queues[lane].tokens <= half]
        self._full.difference_update(open_again)
        return open_again

    def clear(self) -> int:
        """Forget everything that waits (it will be delivered again); returns how many records that were."""
        count = len(self)
        self._queues.clear()
        self._lanes.clear()
        self._topics.clear()
        self._full.clear()
        self.tokens = 0
        return count

    def _serve(self, queue: _Queue[Item], spend: int, most: int, taken: list[Item]) -> int:
        spent = count = 0
        items = queue.items
        while items and spent < spend and count < most:
            item, tokens = items.popleft()
            taken.append(item)
            spent += tokens
            count += 1
        queue.tokens -= spent
        self.tokens -= spent
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
