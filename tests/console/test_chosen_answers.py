"""Answers that a person put into the review queue from the live flow: who holds them, and when they leave."""

from review_items import make_item
from test_review_queue import judge, queue_of

from murmura.console.review.entry import CHOSEN_S
from murmura.console.review.queue import LEASE_S, UNDO_S, ReviewQueue


def test_an_answer_that_somebody_chose_is_not_put_before_two_people() -> None:
    queue, (item,) = queue_of(1)
    queue.hold("a", "ann", 0.0)
    assert "holds this answer" in queue.ask_for(item, {}, "b", "bob", 1.0)
    assert queue.ask_for(item, {}, "a", "ann", 1.0) is None
    assert queue.ask_for(item, {}, "b", "bob", 1.0 + LEASE_S) is None
    judge(queue, item, "bob")
    assert "You have judged" in queue.ask_for(item, {}, "b", "bob", 2.0 + LEASE_S)


def test_an_answer_that_somebody_chose_and_nobody_judges_leaves_after_a_day_unless_a_review_asks_for_it() -> None:
    queue, (one, other) = ReviewQueue(0.0), (make_item(n, why=None) for n in (1, 2))
    for item in (one, other):
        assert queue.ask_for(item, {}, "a", "ann", 0.0) is None
    queue.add(make_item(2))
    assert queue.finish(CHOSEN_S - 1) == []
    assert queue.hold("a", "ann", CHOSEN_S - 1)
    assert queue.finish(CHOSEN_S) == []  # it is on a screen
    assert queue.finish(CHOSEN_S + LEASE_S) == [one]
    assert (queue.counts(CHOSEN_S).set_aside, other.key in queue) == (1, True)


def test_who_chooses_an_answer_that_was_judged_here_lately_is_told_by_whom() -> None:
    queue, (item,) = queue_of(1)
    queue.acknowledge(judge(queue, item, "ann"))
    assert queue.finish(UNDO_S) == [item]
    assert queue.ask_for(item, {}, "b", "bob", UNDO_S) is None
    assert queue.hold("b", "bob", UNDO_S) == [item]
    assert queue.judges_to_tell(item.key, "bob") == ("ann",)
    assert queue.finish(UNDO_S + LEASE_S) == [item]
