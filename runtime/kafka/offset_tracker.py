"""Which offsets may be committed. Pure and synchronous: no clock, no I/O, no Kafka."""

from collections import deque
from collections.abc import Collection, Iterable
from typing import Generic, Protocol, TypeVar

Partition = TypeVar("Partition")


class NotesFinished(Protocol):
    """Where to note that a delivered record is finished: `Progress`, or what stands before it."""

    def finish(self, offset: int) -> None: ...


class Progress:
    """One log of one partition under one assignment.

    Owns the offsets delivered under this assignment, in the order received. A new object is made for each assignment, and
    when the partition's log is another one, so whatever finishes late under an old one touches nothing that is still
    committed from.

    Invariants:
    - `committable` never passes the first unfinished offset;
    - it never goes back;
    - it is always an offset that was seen, the one behind the last seen, or the client's position: offsets have holes
      (compaction, transaction markers), so nothing is ever computed by adding one over a gap.
    """

    __slots__ = ("_done", "_marks", "_next", "_order", "_position", "committed")

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._done: set[int] = set()
        self._next: int | None = None
        self._position = 0
        self._marks: deque[tuple[int, float]] = deque()
        self.committed: int | None = None
        """What the broker last acknowledged; None before the first commit under this assignment."""

    def begin(self, offset: int) -> bool:
        """Note a delivered offset; False when it was delivered before under this assignment (a fetch repeated it)."""
        if self._next is None:
            self._next = offset
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
        if not order:
            self.follow(self._position)

    def follow(self, position: int) -> None:
        """Note where the client goes on: everything before has been delivered, or is no record.

        Transaction markers and aborted records are none, so with nothing unfinished the position may be committed.
        """
        self._position = position
        if not self._order and (self._next is None or position > self._next):
            self._next = position

    def mark(self, offset: int, now: float) -> None:
        """Note when the records from `offset` on were delivered: once for a fetch."""
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
        """The offset that a successor should read first; None while the position is not known."""
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

    def __init__(self, progress: NotesFinished, parts: int) -> None:
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
        self._asked: dict[Partition, Progress] = {}
        """Whose offsets were last given out to be committed."""

    def progress(self, partition: Partition) -> Progress:
        """Return the partition's progress, made at its first record: records can arrive before the assignment is told."""
        found = self._partitions.get(partition)
        if found is None:
            found = self._partitions[partition] = Progress()
        return found

    def known(self, partition: Partition) -> Progress | None:
        """Return the partition's progress where there is one."""
        return self._partitions.get(partition)

    def restart(self, partition: Partition, position: int) -> None:
        """Begin anew at `position`: the partition's log is another one. What finishes of the old one counts no more."""
        self._partitions[partition] = Progress()
        self._partitions[partition].follow(position)

    def commits(self, assigned: Collection[Partition]) -> dict[Partition, int]:
        """Return what to commit: only what moved, only what is assigned (one foreign partition fails them all).

        The first commit of an assignment says where the group stands even when nothing moved: a group that starts at the
        end of a log would otherwise start at a later end after a crash.
        """
        due: dict[Partition, int] = {}
        self._asked = {}
        for partition, progress in self._partitions.items():
            offset = progress.committable
            if offset is not None and offset != progress.committed and partition in assigned:
                due[partition] = offset
                self._asked[partition] = progress
        return due

    def committed(self, offsets: Iterable[tuple[Partition, int]]) -> None:
        """Note what the broker has acknowledged; a partition revoked or begun anew meanwhile is passed over."""
        for partition, offset in offsets:
            progress = self._partitions.get(partition)
            if progress is not None and progress is self._asked.get(partition):
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
