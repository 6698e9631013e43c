"""Who holds what, what is undone, and when an item is done."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from review_items import make_feedback, make_item

from murmura.console.review.agreement import Agreement
from murmura.console.review.item import ReviewItem
from murmura.console.review.known_verdicts import KnownVerdicts
from murmura.console.review.queue import LEASE_S, SECOND_BY_S, UNDO_DEPTH, UNDO_S, ReviewQueue
from murmura.schemas.feedback import Verdict
from murmura.schemas.review import ReviewReason


def queue_of(count: int, overlap: float = 0.0) -> tuple[ReviewQueue, list[ReviewItem]]:
    queue, items = ReviewQueue(overlap), [make_item(number) for number in range(count)]
    for item in items:
        queue.add(item)
    return queue, items


def judge(queue: ReviewQueue, item: ReviewItem, by: str, now: float = 0.0, target: str = "refund") -> str:
    feedback = make_feedback(item, by)
    taken = queue.give(item.key, by, feedback, target, now)
    assert taken is not None
    return taken.feedback_id


def test_a_browser_holds_the_item_on_the_screen_and_the_next_one() -> None:
    queue, items = queue_of(5)
    assert queue.hold("a", "ann", 0.0) == items[:2]
    assert queue.hold("b", "bob", 0.0) == items[2:4]
    judge(queue, items[0], "ann")
    assert queue.hold("a", "ann", 1.0) == [items[1], items[4]]
    assert queue.hold("c", "cid", 1.0) == []


def test_an_item_that_is_drawn_at_random_too_becomes_blind_unless_it_was_judged() -> None:
    queue, items = queue_of(2)
    queue.hold("a", "ann", 0.0)
    judge(queue, items[1], "bob")
    for number in range(2):
        queue.add(make_item(number, why=ReviewReason.RANDOM))
    assert [queue.find(item.key).is_blind for item in items] == [True, False]
    assert not queue.find(items[0].key).is_judged_blind, "ann has seen the guess"


def test_an_item_is_judged_blind_where_its_guess_was_never_shown() -> None:
    queue, (first, second) = (
        ReviewQueue(overlap=0.0),
        (make_item(number, why=ReviewReason.RANDOM) for number in range(2)),
    )
    queue.add(first)
    queue.hold("a", "ann", 0.0)
    queue.add(first)  # read again after a rebalance
    queue.add(make_item(1))
    queue.add(second)
    assert [queue.find(item.key).is_judged_blind for item in (first, second)] == [True, True]


def test_a_lease_ends_after_ten_minutes() -> None:
    queue, items = queue_of(1)
    queue.hold("a", "ann", 0.0)
    assert queue.hold("b", "bob", LEASE_S - 1) == []
    assert queue.hold("b", "bob", LEASE_S) == items


def test_a_late_verdict_is_kept_beside_another_persons_and_both_are_told() -> None:
    queue, (item,) = queue_of(1)
    queue.hold("a", "ann", 0.0)
    queue.hold("b", "bob", LEASE_S)
    assert queue.give(item.key, "a", make_feedback(item, "ann"), "refund", LEASE_S + 1).others == ()
    assert queue.hold("b", "bob", LEASE_S + 2) == [item]  # it is on the screen
    assert queue.judges_to_tell(item.key, "bob") == ("ann",)
    assert queue.give(item.key, "b", make_feedback(item, "bob"), "loan", LEASE_S + 3).others == ("ann",)
    assert len(queue.unsent) == 2


def test_a_verdict_that_comes_after_its_item_was_done_is_sent_and_can_be_undone() -> None:
    queue, (item,) = queue_of(1)
    queue.hold("a", "ann", 0.0)
    queue.acknowledge(judge(queue, item, "bob", LEASE_S))
    now = LEASE_S + UNDO_S
    assert queue.finish(now) == [item]
    assert queue.find(item.key) == item
    late = make_feedback(item, "ann")
    assert queue.give(item.key, "a", late, "loan", now + 1).others == ("bob",)
    assert (list(queue.unsent), queue.agreement) == ([late.id], {})
    queue.acknowledge(late.id)
    assert queue.undoable("ann") == (item, late.id)
    assert queue.finish(now + UNDO_S + 1) == [item]
    assert queue.counts(now).judged == 1
    queue.finish(now + UNDO_S + LEASE_S + 1)
    assert queue.find(item.key) is queue.give(item.key, "a", make_feedback(item, "cid"), "loan", 9e9) is None


@pytest.mark.parametrize("leave", ["done", "revoked"])
def test_undo_works_where_what_the_browser_held_is_not_here_any_more(leave: str) -> None:
    queue, items = queue_of(3)
    here = queue.hold("x", "ann", 0.0)
    if leave == "done":  # in another browser of hers
        for item in here:
            queue.acknowledge(queue.give(item.key, "y", make_feedback(item, "ann"), "refund", 0.0).feedback_id)
        assert queue.finish(LEASE_S) == here
    else:
        queue.counts(LEASE_S)  # the leases have run out
        queue.revoke(item.place[:2] for item in here)
    queue.acknowledge(queue.give(items[2].key, "y", make_feedback(items[2], "ann"), "refund", LEASE_S).feedback_id)
    item, name = queue.undoable("ann")
    withdrawal = make_feedback(item, "ann", verdict=Verdict.WITHDRAWN, value=name)
    assert queue.undo("x", withdrawal, LEASE_S) == items[2]
    assert queue.hold("x", "ann", LEASE_S) == [items[2]]


def test_browsers_that_went_away_are_forgotten() -> None:
    queue, _ = queue_of(6)
    for holder in "abc":
        queue.hold(holder, holder, 0.0)
    queue.finish(LEASE_S - 1)
    assert len(queue._held) == 3
    queue.finish(LEASE_S)
    assert queue._held == {}


def test_nothing_is_undone_while_another_console_may_read_the_partition() -> None:
    queue, items = queue_of(2)
    first, second = (judge(queue, item, "ann") for item in items)
    queue.revoke([items[1].place[:2]])
    assert queue.undoable("ann") == (items[0], first)
    queue.add(items[1])  # read again after a rebalance
    assert queue.undoable("ann") == (items[1], second)


def test_an_item_is_done_when_its_feedback_is_acknowledged_and_can_no_longer_be_undone() -> None:
    queue, (item,) = queue_of(1)
    queue.hold("ann", "ann", 0.0)
    name = judge(queue, item, "ann")
    assert queue.finish(UNDO_S) == []
    assert queue.counts(UNDO_S).unsent == 1
    queue.acknowledge(name)
    assert queue.finish(UNDO_S) == [item]
    assert queue.counts(UNDO_S).judged == 1


def test_what_is_behind_the_last_ten_verdicts_is_done_at_once() -> None:
    queue, items = queue_of(UNDO_DEPTH + 2)
    for item in items:
        queue.acknowledge(judge(queue, item, "ann"))
    assert queue.finish(1.0) == items[:2]


def test_an_undone_verdict_is_withdrawn_and_its_item_comes_back() -> None:
    queue, items = queue_of(4)
    first, second = queue.hold("a", "ann", 0.0)
    queue.acknowledge(queue.give(first.key, "a", make_feedback(first, "ann"), "refund", 1.0).feedback_id)
    queue.hold("a", "ann", 1.0)
    item, name = queue.undoable("ann")
    withdrawal = make_feedback(item, "ann", verdict=Verdict.WITHDRAWN, value=name)
    assert queue.undo("a", withdrawal, 2.0) == first
    assert queue.undoable("ann") is None
    assert queue.hold("a", "ann", 2.0) == [first, second]
    assert list(queue.unsent) == [withdrawal.id]
    assert queue.hold("b", "bob", 3.0) == items[2:4]
    assert queue.finish(UNDO_S * 2) == []  # the withdrawal is not acknowledged


def test_a_skipped_item_comes_last_and_the_third_time_it_is_set_aside() -> None:
    queue, items = queue_of(2)
    for _ in range(3):
        assert queue.skip(items[0].key, "a")
    assert queue.hold("a", "ann", 0.0) == [items[1]]
    assert queue.finish(0.0) == [items[0]]
    assert queue.counts(0.0).set_aside == 1


def test_an_overlapping_item_goes_to_two_people_who_do_not_know() -> None:
    queue, (item,) = queue_of(1, overlap=1.0)
    assert queue.hold("a", "ann", 0.0) == queue.hold("b", "bob", 0.0) == [item]
    assert queue.hold("c", "cid", 0.0) == []
    queue.acknowledge(judge(queue, item, "ann", target="refund"))
    assert queue.finish(UNDO_S + 1) == []
    assert queue.hold("ann-at-home", "ann", LEASE_S) == []
    assert queue.judges_to_tell(item.key, "bob") == ()
    queue.acknowledge(judge(queue, item, "bob", LEASE_S, target="loan"))
    assert queue.finish(LEASE_S + UNDO_S) == [item]
    assert (queue.agreement["intent"].count, queue.agreement["intent"].share) == (1, 0.0)


def test_an_overlapping_item_waits_an_hour_for_its_second_person() -> None:
    queue, (item,) = queue_of(1, overlap=1.0)
    queue.acknowledge(judge(queue, item, "ann"))
    assert queue.finish(SECOND_BY_S - 1) == []
    assert queue.finish(SECOND_BY_S) == [item]


def test_an_item_that_was_judged_before_a_restart_is_not_shown_again() -> None:
    queue, item = ReviewQueue(0.0), make_item()
    queue.add(item, judges={"f-0": "ann"})
    assert queue.hold("b", "bob", 0.0) == []
    assert queue.finish(0.0) == [item]
    assert queue.counts(0.0).elsewhere == 1


def test_a_verdict_sent_twice_is_one() -> None:
    queue, (item,) = queue_of(1)
    first = judge(queue, item, "ann")
    assert judge(queue, item, "ann") == first
    assert judge(queue, item, "ann", target="loan") != first
    assert queue.by_person["ann"] == 1


def test_what_another_console_reads_now_leaves_and_what_is_held_stays() -> None:
    queue, items = queue_of(6)
    queue.hold("a", "ann", 0.0)  # items 0 and 1, of partitions 0 and 1
    queue.revoke([("requests", 0), ("requests", 1)])
    assert [item.key in queue for item in items] == [True, True, True, False, False, True]
    assert queue.finish(LEASE_S) == []
    assert [item.key in queue for item in items[:2]] == [False, False]


def test_kappa_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("c", "a"), ("c", "c"), ("a", "a")]
    agreement = Agreement()
    for one, other in pairs:
        agreement.add(one, other)
    assert agreement.share == pytest.approx(4 / 6)
    assert agreement.kappa == pytest.approx(metrics.cohen_kappa_score(*zip(*pairs, strict=True)))
    assert Agreement().kappa is Agreement().share is None


def test_known_verdicts_are_bounded_and_obey_withdrawals_of_the_author() -> None:
    known, items = KnownVerdicts(most=2), [make_item(number) for number in range(3)]
    given = [make_feedback(item, "ann") for item in items]
    for feedback in [*given, make_feedback(items[2], "customer", verdict=Verdict.DOWN)]:
        known.add(feedback)
    judged = [known.judges_of(item.prediction_id, "intent") for item in items]
    assert judged == [{}, {given[1].id: "ann"}, {given[2].id: "ann"}]
    known.add(make_feedback(items[1], "bob", verdict=Verdict.WITHDRAWN, value=given[1].id))
    assert known.judges_of(items[1].prediction_id, "intent") == {given[1].id: "ann"}
    known.add(make_feedback(items[1], "ann", verdict=Verdict.WITHDRAWN, value=given[1].id))
    assert known.judges_of(items[1].prediction_id, "intent") == {}


class QueueMachine(RuleBasedStateMachine):
    """Several browsers at one queue without overlap, with a broker that acknowledges when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.now, self.added = ReviewQueue(0.0, most=50), 0.0, 0
        self.keys: list[str] = []
        self.done: set[str] = set()
        self.given: dict[str, set[str]] = {}
        self.acknowledged: set[str] = set()
        self.screens: dict[str, tuple[float, list[ReviewItem]]] = {}

    @rule(count=st.integers(1, 3))
    def add(self, count: int) -> None:
        for _ in range(min(count, self.queue.room)):
            self.queue.add(item := make_item(self.added), now=self.now)
            self.keys.append(item.key)
            self.added += 1

    @rule(holder=st.sampled_from("abc"))
    def look(self, holder: str) -> None:
        self.screens[holder] = self.now, self.queue.hold(holder, holder, self.now)

    @rule(holder=st.sampled_from("abc"), label=st.sampled_from(["refund", "loan"]))
    def answer(self, holder: str, label: str) -> None:
        _, shown = self.screens.pop(holder, (0.0, []))
        if shown:
            feedback = make_feedback(shown[0], holder)
            taken = self.queue.give(shown[0].key, holder, feedback, label, self.now)
            if taken is not None and taken.feedback_id == feedback.id:
                self.given.setdefault(shown[0].key, set()).add(feedback.id)

    @rule(holder=st.sampled_from("abc"))
    def skip(self, holder: str) -> None:
        _, shown = self.screens.pop(holder, (0.0, []))
        if shown:
            self.queue.skip(shown[0].key, holder)

    @rule(holder=st.sampled_from("abc"))
    def undo(self, holder: str) -> None:
        if (found := self.queue.undoable(holder)) is not None:
            item, name = found
            withdrawal = make_feedback(item, holder, verdict=Verdict.WITHDRAWN, value=name)
            assert self.queue.undo(holder, withdrawal, self.now) == item
            self.given[item.key].add(withdrawal.id)
            self.screens.pop(holder, None)

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        if self.queue.unsent:
            name = data.draw(st.sampled_from(sorted(self.queue.unsent)))
            self.queue.acknowledge(name)
            self.acknowledged.add(name)

    @rule(seconds=st.sampled_from([1.0, 60.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def finish(self) -> None:
        for item in self.queue.finish(self.now):
            assert self.given.get(item.key, set()) <= self.acknowledged
            self.done.add(item.key)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert all(key in self.queue or key in self.done for key in self.keys)
        assert set().union(*self.given.values()) <= self.acknowledged | set(self.queue.unsent)

    @invariant()
    def no_two_browsers_hold_one_item(self) -> None:
        held = [item.key for at, shown in self.screens.values() if at + LEASE_S > self.now for item in shown]
        assert len(held) == len(set(held))


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
