"""Tracks which offsets may be committed. Pure and synchronous: no clock, no I/O, no Kafka."""

from collections import deque
from collections.abc import Collection, Iterable
from typing import Generic, Protocol, TypeVar

Partition = TypeVar("Partition")


class CompletionSink(Protocol):
    """Receives finished offsets: `Progress`, or a wrapper of it."""

    def finish(self, offset: int) -> None: ...


class Progress:
    """The progress in one log of one partition under one assignment.

    Owns the offsets delivered under this assignment, in the order received. A new object is made for each assignment
    and for each new log of the partition, so that a late completion under an old one does not affect commits.

    Invariants:
    - `committable` never passes the first unfinished offset;
    - it never decreases;
    - it is always a delivered offset, the one after the last delivered, or the client's position: offsets have gaps
      (compaction, transaction markers), so it is never computed across a gap.
    """

    __slots__ = ("_done", "_marks", "_next", "_order", "_position", "committed")

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._done: set[int] = set()
        self._next: int | None = None
        self._position = 0
        self._marks: deque[tuple[int, float]] = deque()
        self.committed: int | None = None
        """The last commit that the broker acknowledged; None before the first one under this assignment."""

    def begin(self, offset: int) -> bool:
        """Record a delivered offset; False when it was delivered before under this assignment (a repeated fetch)."""
        if self._next is None:
            self._next = offset
        elif (self._order and offset <= self._order[-1]) or (not self._order and offset < self._next):
            return False
        self._order.append(offset)
        return True

    def finish(self, offset: int) -> None:
        """Record that the broker has acknowledged the offset's result or dead letter."""
        order, done = self._order, self._done
        if order and order[0] == offset:
            self._next = order.popleft() + 1
        else:
            done.add(offset)
        while order and order[0] in done:
            self._next = order.popleft() + 1
            done.discard(self._next - 1)
        if not order:
            self.follow(self._position)

    def follow(self, position: int) -> None:
        """Record the client's position: everything before it has been delivered, or is not a record.

        Transaction markers and aborted records are not delivered, so the position is committable once all is finished.
        """
        self._position = position
        if not self._order and (self._next is None or position > self._next):
            self._next = position

    def mark(self, offset: int, now: float) -> None:
        """Record when the records from `offset` on were delivered. Call it once per fetch."""
        self._drop_marks()
        self._marks.append((offset, now))

    def oldest_s(self, now: float) -> float:
        """Return for how long the oldest unfinished record has waited; 0 when all are finished."""
        self._drop_marks()
        return now - self._marks[0][1] if self._marks else 0.0

    def _drop_marks(self) -> None:
        if not self._order:
            self._marks.clear()
        while len(self._marks) > 1 and self._marks[1][0] <= self._order[0]:
            self._marks.popleft()

    @property
    def committable(self) -> int | None:
        """The offset that the next owner reads first; None while the position is not known."""
        return self._order[0] if self._order else self._next

    @property
    def uncommitted(self) -> int:
        """The number of delivered offsets from the first unfinished one on, finished or not."""
        return len(self._order)

    @property
    def unfinished(self) -> int:
        """The number of delivered offsets that are not finished."""
        return len(self._order) - len(self._done)


class OpenParts:
    """The parts of one record that are finished separately: the record is finished with the last of them."""

    __slots__ = ("_open", "_progress")

    def __init__(self, progress: CompletionSink, parts: int) -> None:
        self._progress = progress
        self._open = parts

    def add(self) -> None:
        """Add one more part. Call it only while a part is open."""
        self._open += 1

    def finish(self, offset: int) -> None:
        """Record that a part is finished: answered, dead-lettered, or stored in another topic."""
        self._open -= 1
        if self._open == 0:
            self._progress.finish(offset)


class Tracker(Generic[Partition]):
    """The progress of all partitions of the current assignment.

    `revoke` drops everything and increments the epoch: partitions that are assigned again start from scratch.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._partitions: dict[Partition, Progress] = {}
        self._asked: dict[Partition, Progress] = {}
        """The progress objects whose offsets are being committed."""

    def progress(self, partition: Partition) -> Progress:
        """Return the partition's progress, created on first use: records may precede the assignment callback."""
        found = self._partitions.get(partition)
        if found is None:
            found = self._partitions[partition] = Progress()
        return found

    def known(self, partition: Partition) -> Progress | None:
        """Return the partition's progress; None before its first record."""
        return self._partitions.get(partition)

    def restart(self, partition: Partition, position: int) -> None:
        """Start a new progress at `position` for a new log. Completions of the old log are ignored."""
        self._partitions[partition] = Progress()
        self._partitions[partition].follow(position)

    def commits(self, assigned: Collection[Partition]) -> dict[Partition, int]:
        """Return the offsets to commit: only changed ones, only assigned partitions (one other partition fails them
        all).

        The first commit of an assignment includes unchanged offsets: otherwise a group that starts at the end of a log
        would start at a later end after a crash.
        """
        due: dict[Partition, int] = {}
        self._asked = {}
        for partition, progress in self._partitions.items():
            offset = progress.committable
            if offset is not None and offset != progress.committed and partition in assigned:
                due[partition] = offset
                self._asked[partition] = progress
        return due

    def record_committed(self, offsets: Iterable[tuple[Partition, int]]) -> None:
        """Record acknowledged commits. Partitions that were revoked or restarted meanwhile are ignored."""
        for partition, offset in offsets:
            progress = self._partitions.get(partition)
            if progress is not None and progress is self._asked.get(partition):
                progress.committed = offset

    def revoke(self) -> int:
        """Drop the assignment; returns the number of delivered offsets that were not finished."""
        cut = self.unfinished
        self._partitions = {}
        self.epoch += 1
        return cut

    @property
    def unfinished(self) -> int:
        """The number of delivered offsets that are not finished, over all partitions."""
        return sum(progress.unfinished for progress in self._partitions.values())
