"""Whatever happens, no commit passes an unfinished offset and none goes back."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from murmura.runtime.kafka.offset_tracker import Progress, Tracker


def test_nothing_is_committable_before_the_first_record():
    assert Progress().committable is None


def test_the_first_unfinished_offset_is_what_a_successor_reads_first():
    progress = Progress()
    for offset in (5, 6, 9):
        progress.begin(offset)
    progress.finish(9)
    assert progress.committable == 5
    progress.finish(5)
    assert progress.committable == 6
    progress.finish(6)
    assert progress.committable == 10


def test_over_a_gap_the_next_delivered_offset_is_committed():
    progress = Progress()
    progress.begin(3)
    progress.begin(70)
    progress.finish(3)
    assert progress.committable == 70


def test_an_offset_that_a_fetch_repeats_is_begun_once():
    progress = Progress()
    assert progress.begin(1)
    assert not progress.begin(1)
    progress.finish(1)
    assert not progress.begin(1)
    assert progress.begin(2)
    assert progress.committable == 2


def test_a_late_finish_of_an_old_assignment_moves_nothing():
    tracker: Tracker[str] = Tracker()
    old = tracker.progress("p")
    old.begin(1)
    assert tracker.revoke() == 1
    new = tracker.progress("p")
    new.begin(1)
    old.finish(1)
    assert new.committable == 1
    assert tracker.commits({"p"}) == {"p": 1}


def test_partitions_that_are_not_assigned_are_not_committed():
    tracker: Tracker[str] = Tracker()
    for name in ("mine", "foreign"):
        tracker.progress(name).begin(0)
        tracker.progress(name).finish(0)
    assert tracker.commits({"mine"}) == {"mine": 1}
    tracker.record_committed([("mine", 1)])
    assert tracker.commits({"mine"}) == {}


def test_where_an_assignment_starts_is_committed_though_nothing_was_delivered():
    tracker: Tracker[str] = Tracker()
    tracker.progress("p").follow(70)
    assert tracker.commits({"p"}) == {"p": 70}
    tracker.record_committed([("p", 70)])
    assert tracker.commits({"p"}) == {}


def test_a_position_behind_markers_is_committable_once_nothing_is_unfinished():
    progress = Progress()
    progress.begin(5)
    progress.follow(9)
    assert progress.committable == 5
    progress.finish(5)
    assert progress.committable == 9
    assert progress.begin(9)


def test_a_log_that_begins_anew_is_answered_and_committed_whatever_finishes_of_the_old_one():
    tracker: Tracker[str] = Tracker()
    old = tracker.progress("p")
    for offset in (1000, 1001):
        old.begin(offset)
    assert tracker.commits({"p"}) == {"p": 1000}
    tracker.restart("p", 0)
    tracker.record_committed([("p", 1000)])  # acknowledged late, of the old log
    old.finish(1000)
    new = tracker.progress("p")
    assert new.begin(0)
    new.finish(0)
    assert tracker.commits({"p"}) == {"p": 1}
    tracker.record_committed([("p", 1)])
    assert tracker.commits({"p"}) == {}


def test_reading_what_is_known_makes_no_progress():
    tracker: Tracker[str] = Tracker()
    assert tracker.known("p") is None
    assert tracker.commits({"p"}) == {}


def test_the_oldest_unfinished_record_is_as_old_as_its_fetch():
    progress = Progress()
    for fetch, now in ((range(3), 10.0), (range(3, 6), 20.0)):
        for offset in fetch:
            progress.begin(offset)
        progress.mark(fetch[0], now)
    assert progress.oldest_s(30.0) == 20
    for offset in (1, 2, 3, 0):
        progress.finish(offset)
    assert progress.oldest_s(30.0) == 10
    for offset in (4, 5):
        progress.finish(offset)
    assert progress.oldest_s(30.0) == 0


@given(st.lists(st.integers(1, 5), min_size=1, max_size=60), st.randoms())
@settings(max_examples=200)
def test_any_order_of_finishing_ends_behind_the_last(gaps, random):
    progress = Progress()
    offsets, at = [], 0
    for gap in gaps:
        at += gap
        offsets.append(at)
        progress.begin(at)
    shuffled = offsets[:]
    random.shuffle(shuffled)
    finished: set[int] = set()
    for offset in shuffled:
        progress.finish(offset)
        finished.add(offset)
        left = [o for o in offsets if o not in finished]
        assert progress.committable == (left[0] if left else offsets[-1] + 1)
        assert progress.unfinished == len(left)


class Consumption(RuleBasedStateMachine):
    """A partition's log, a group's committed offset, and members that come, crash and go, against the tracker."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker: Tracker[int] = Tracker()
        self.committed = 0
        self.done: set[int] = set()
        self.position = 0
        self.under_way: list[tuple[Progress, int]] = []
        self.stale: list[tuple[Progress, int]] = []

    @rule(count=st.integers(1, 5), gap=st.integers(0, 3))
    def deliver(self, count: int, gap: int) -> None:
        self.position += gap
        self.done.update(range(self.position - gap, self.position))  # offsets that are no records
        for _ in range(count):
            progress = self.tracker.progress(0)
            if progress.begin(self.position):
                self.under_way.append((progress, self.position))
            self.position += 1

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        progress, offset = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        progress.finish(offset)
        self.done.add(offset)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def finish_late(self, data: st.DataObject) -> None:
        progress, offset = self.stale.pop(data.draw(st.integers(0, len(self.stale) - 1)))
        progress.finish(offset)

    @rule()
    def commit(self) -> None:
        due = self.tracker.commits({0})
        if 0 in due:
            assert due[0] >= self.committed
            self.committed = due[0]
            self.tracker.record_committed(due.items())

    @rule(crash=st.booleans())
    def lose_the_partition(self, crash: bool) -> None:
        if not crash:
            self.commit()
        self.tracker.revoke()
        self.stale += self.under_way
        self.under_way = []
        self.position = self.committed

    @invariant()
    def no_commit_passes_an_unfinished_offset(self) -> None:
        assert all(offset in self.done for offset in range(self.committed))


TestConsumption = Consumption.TestCase
TestConsumption.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
