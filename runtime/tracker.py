"""Which offsets may be committed. Pure and synchronous: no clock, no I/O, no Kafka."""

from collections import deque
from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

Partition = TypeVar("Partition")


class Progress:
    """One assignment of one partition.

    Owns the offsets delivered under this assignment, in the order received. A new object is made for each assignment,
    so whatever finishes late under an old one touches nothing that is still committed from.

    Invariants:
    - `committable` never passes the first unfinished offset;
    - it never goes back;
    - it is always an offset that was seen, or the one behind the last seen: offsets have holes (compaction,
      transaction markers), so nothing is ever computed by adding one over a gap.
    """

    __slots__ = ("_done", "_next", "_order", "committed")

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._done: set[int] = set()
        self._next: int | None = None
        self.committed: int | None = None
        """What the broker last acknowledged; None before the first commit under this assignment."""

    def begin(self, offset: int) -> bool:
        """Note a delivered offset; False when it was delivered before under this assignment (a fetch repeated it)."""
        if self._next is None:
            # The first offset seen is where the group stands: committing it again would say nothing new.
            self._next = self.committed = offset
        elif (self._order and offset <= self._order[-1]) or (not self._order and offset < self._next):
            return False
        self._order.append(offset)
        return True

    def finish(self, offset: int) -> None:
        """Note that the broker has acknowledged the offset's result or dead letter."""
        order, done = self._order, self._done
        if order and order[0] == offset:
            self._next = order.popleft() + 1
        else:
            done.add(offset)
        while order and order[0] in done:
            self._next = order.popleft() + 1
            done.discard(self._next - 1)

    @property
    def committable(self) -> int | None:
        """The offset that a successor should read first; None while nothing was delivered."""
        return self._order[0] if self._order else self._next

    @property
    def uncommitted(self) -> int:
        """How many delivered offsets are noted: those that are not finished, and the finished ones behind the first."""
        return len(self._order)

    @property
    def unfinished(self) -> int:
        """How many delivered offsets are not finished."""
        return len(self._order) - len(self._done)


class OpenParts:
    """The parts of one record that wait apart from each other: the record is finished when the last one is."""

    __slots__ = ("_open", "_progress")

    def __init__(self, progress: Progress, parts: int) -> None:
        self._progress = progress
        self._open = parts

    def add(self) -> None:
        """Note one more part. Only while one is open."""
        self._open += 1

    def finish(self, offset: int) -> None:
        """Note that a part is finished: answered, dead-lettered, or kept in another topic."""
        self._open -= 1
        if self._open == 0:
            self._progress.finish(offset)


class Tracker(Generic[Partition]):
    """All partitions of the current assignment.

    `revoke` forgets everything and raises the epoch: partitions that come back start anew.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._partitions: dict[Partition, Progress] = {}

    def progress(self, partition: Partition) -> Progress:
        """Return the partition's progress, made at its first record: records can arrive before the assignment is told."""
        found = self._partitions.get(partition)
        if found is None:
            found = self._partitions[partition] = Progress()
        return found

    def commits(self, assigned: Collection[Partition]) -> dict[Partition, int]:
        """Return what to commit: only what moved, only what is assigned (one foreign partition fails them all)."""
        due: dict[Partition, int] = {}
        for partition, progress in self._partitions.items():
            offset = progress.committable
            if offset is not None and offset != progress.committed and partition in assigned:
                due[partition] = offset
        return due

    def committed(self, offsets: Iterable[tuple[Partition, int]]) -> None:
        """Note what the broker has acknowledged; a partition revoked meanwhile is passed over."""
        for partition, offset in offsets:
            progress = self._partitions.get(partition)
            if progress is not None and (progress.committed is None or offset > progress.committed):
                progress.committed = offset

    def revoke(self) -> int:
        """Forget the assignment; returns how many delivered offsets were not finished."""
        cut = self.unfinished
        self._partitions = {}
        self.epoch += 1
        return cut

    @property
    def unfinished(self) -> int:
        """How many delivered offsets are not finished, over all partitions."""
        return sum(progress.unfinished for progress in self._partitions.values())
