"""When a record is tried again, and where it waits until then. Pure: no clock, no I/O, told the time and the chance."""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

STEPS_S: Final = (60.0, 600.0, 3600.0)
"""Pauses of the partitions of the topic of retries: partition number is the place in this table."""
IN_MEMORY_S: Final = 30.0
"""Pauses up to here wait in the process: their record is not committed meanwhile."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often an agent's records are tried, and how long apart.

    The pause after attempt n is drawn evenly from 0 to `first_pause_s * factor ** (n - 1)`, at most `longest_pause_s`
    ("full jitter": records that failed together do not come back together; M. Brooker, Exponential Backoff And Jitter,
    AWS Architecture Blog, 2015).
    """

    attempts: int = 5
    """In all, the first one among them."""
    first_pause_s: float = 1.0
    factor: float = 4.0
    longest_pause_s: float = 3600.0
    deadline_s: float = 86_400.0
    """Counted from the timestamp of the original; no attempt begins after it."""

    def next_pause_s(
        self, made: int, age_s: float, uniform: Callable[[], float], asked_s: float | None = None
    ) -> float | None:
        """Return the pause before the next attempt; None when there is none.

        `made`: attempts up to now, at least 1. `age_s`: of the original. `uniform`: a number from [0, 1). `asked_s`: the
        pause that the agent asked for, which is taken as it is.
        """
        if made >= self.attempts:
            return None
        pause_s = asked_s if asked_s is not None else uniform() * self._longest_after(made)
        return None if age_s + pause_s > self.deadline_s else pause_s

    def _longest_after(self, made: int) -> float:
        try:
            grown = self.first_pause_s * self.factor ** (made - 1)
        except OverflowError:
            grown = math.inf
        return min(grown, self.longest_pause_s)


def choose_step(pause_s: float, steps_s: Sequence[float] = STEPS_S) -> int:
    """Return the partition of the topic of retries in which a record waits: the longest step that is not too long.

    What is left of a pause when the step is over is waited for in another round, or in memory.
    """
    return max((step for step, length_s in enumerate(steps_s) if length_s <= pause_s), default=0)


def wake_time(step: int, written: float, not_before: float, steps_s: Sequence[float] = STEPS_S) -> float:
    """Return when the record at the head of a step is looked at, in the unit and origin of `written` and `not_before`.

    A record written with `choose_step` is not due before its step is over, so that within a partition these times only
    grow. One that is due earlier (sent again by a person) is looked at as soon as nothing before it waits.
    """
    return min(written + steps_s[min(step, len(steps_s) - 1)], not_before)


class DelayQueue(Generic[Item]):
    """What waits for its time. Items of the same time leave in the order in which they came."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over what waits, in no particular order."""
        return (item for _, _, item in self._heap)

    def push(self, item: Item, due: float) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (due, self._pushed, item))

    def next_due(self) -> float | None:
        """Return when the first item is due; None when nothing waits."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[Item]:
        """Return the items that are due, earliest first."""
        due: list[Item] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def take(self, chosen: Callable[[Item], bool]) -> list[Item]:
        """Remove and return the items that are chosen, earliest first."""
        taken = sorted((entry for entry in self._heap if chosen(entry[2])), key=lambda entry: entry[:2])
        if taken:
            numbers = {entry[1] for entry in taken}
            self._heap = [entry for entry in self._heap if entry[1] not in numbers]
            heapq.heapify(self._heap)
        return [item for _, _, item in taken]

    def clear(self) -> None:
        self._heap.clear()
