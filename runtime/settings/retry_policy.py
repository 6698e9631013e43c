"""Decides when a record is retried, and where it waits. Pure: no I/O; the caller passes time and random numbers."""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

STEPS_S: Final = (60.0, 600.0, 3600.0)
"""Pauses of the topic of retries by partition number."""
IN_MEMORY_S: Final = 30.0
"""Maximum pause that waits in the process; the record is not committed meanwhile."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The number of attempts of a record, and the pauses between them.

    The pause after attempt n is uniform between 0 and `first_pause_s * factor ** (n - 1)`, at most `longest_pause_s` ("full
    jitter": records that failed together are not retried together; M. Brooker, Exponential Backoff And Jitter, AWS
    Architecture Blog, 2015).
    """

    attempts: int = 5
    """Maximum number of attempts, the first one included."""
    first_pause_s: float = 1.0
    factor: float = 4.0
    longest_pause_s: float = 3600.0
    deadline_s: float = 86_400.0
    """From the timestamp of the original; no attempt starts after it."""

    def next_pause_s(
        self, made: int, age_s: float, uniform: Callable[[], float], asked_s: float | None = None
    ) -> float | None:
        """Return the pause before the next attempt; None after the last one.

        `made`: number of attempts so far, at least 1. `age_s`: age of the original. `uniform` returns a random number in
        [0, 1). `asked_s`: a pause that the agent asked for, used unchanged.
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
    """Return the partition of the topic of retries for a pause: the longest step that does not exceed it, else the first.

    The rest of the pause after the step waits in another round, or in memory.
    """
    return max((step for step, length_s in enumerate(steps_s) if length_s <= pause_s), default=0)


def wake_time(step: int, written: float, not_before: float, steps_s: Sequence[float] = STEPS_S) -> float:
    """Return when the record at the head of a step is due, in the unit and origin of `written` and `not_before`.

    A record written with `choose_step` is not due before its step is over, so these times increase within a partition. A
    record that is due earlier (redriven by a person) is due as soon as no record before it waits.
    """
    return min(written + steps_s[min(step, len(steps_s) - 1)], not_before)


class DelayQueue(Generic[Item]):
    """A queue of items with due times. Items with the same time leave in the order of their arrival."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Item]:
        """Iterate over the waiting items, in no particular order."""
        return (item for _, _, item in self._heap)

    def push(self, item: Item, due: float) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (due, self._pushed, item))

    def pop_due(self, now: float) -> list[Item]:
        """Remove and return the items that are due, earliest first."""
        due: list[Item] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def take(self, chosen: Callable[[Item], bool]) -> list[Item]:
        """Remove and return the items for which `chosen` is true, earliest first."""
        taken = sorted((entry for entry in self._heap if chosen(entry[2])), key=lambda entry: entry[:2])
        if taken:
            numbers = {entry[1] for entry in taken}
            self._heap = [entry for entry in self._heap if entry[1] not in numbers]
            heapq.heapify(self._heap)
        return [item for _, _, item in taken]

    def clear(self) -> None:
        self._heap.clear()
