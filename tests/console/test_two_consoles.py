"""A review that two people judge, each at another console: who gets it when, and what both consoles count."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from review_items import make_feedback, make_task

from murmura.console.review.item import NO_PLACE, Place, item_key
from murmura.console.review.kafka_reviews import KafkaReviews, take_feedback
from murmura.console.review.known_verdicts import KnownVerdicts
from murmura.console.review.loading import make_item
from murmura.console.review.queue import UNDO_S, ReviewQueue
from murmura.console.review.requests import Found
from murmura.console.review.second_copies import LATEST_S, MOST_REVIEWS, OWN_S, SecondCopies
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import classified
from murmura.runtime.wire.request import Incoming
from murmura.schemas.feedback import Feedback, Verdict
from murmura.schemas.result import ModelRef, Source
from murmura.schemas.review import Review, ReviewReason

ID, TASKS = "a" * 32, {"intent": make_task()}
KEY = item_key(ID, "intent")
REVIEW = Review(
    prediction_id=ID,
    agent="classification",
    task="intent",
    why=ReviewReason.MARGIN,
    source=Source(topic="requests", partition=0, offset=7, timestamp=1_000),
    model=ModelRef(name="desk", version=3),
    score=0.6,
    at=datetime(2026, 1, 2, tzinfo=UTC),
)
FOUND = Found(
    {("requests", 0, 7): Incoming("my money", request_id="r", topic="requests", offset=7, timestamp=1_000)},
    {ID: {"intent": classified("refund", 0.6, ("loan", 0.4))}},
)


class Console:
    """What one console has of the group's reviews; `now` is seconds after the first verdict."""

    def __init__(self) -> None:
        self.queue, self.known, self.copies = ReviewQueue(1.0), KnownVerdicts(), SecondCopies(1.0)
        self.now = 0.0
        self.reviews = KafkaReviews(
            Settings().kafka, "g", "reviews", self.queue, TASKS, self, self.known, lambda: self.now, self.copies
        )
        self.copies.take_reviews([SimpleNamespace(value=value) for value in (b"{", REVIEW.model_dump_json().encode())])

    async def find(self, reviews: Any) -> Found:
        return FOUND

    def read(self, feedback: Feedback) -> None:
        record = SimpleNamespace(value=feedback.model_dump_json().encode())
        take_feedback(self.known, self.queue, self.copies, lambda: self.now)([record])

    async def look(self, after_s: float, first: Feedback) -> bool:
        self.now = first.at.timestamp() + after_s
        await self.reviews._load_copies()
        return KEY in self.queue


async def test_the_second_person_is_found_at_another_console_and_both_count_the_pair() -> None:
    one, other = Console(), Console()
    item = make_item(REVIEW, FOUND, TASKS, Place("reviews", 0, 1))
    one.queue.add(item)
    first = make_feedback(item, "ann")
    one.queue.acknowledge(one.queue.give(KEY, "a", first, '"refund"', first.at.timestamp()).feedback_id)
    for console in (one, other):
        console.read(first)
    assert not await other.look(OWN_S - 1, first)
    assert await other.look(OWN_S, first)
    assert await one.look(OWN_S, first)
    assert other.queue.hold("x", "ann", other.now) == []
    (copy,) = other.queue.hold("b", "bob", other.now)
    assert (copy.place, other.queue.judges_to_tell(KEY, "bob")) == (NO_PLACE, ())
    second = make_feedback(copy, "bob", verdict=Verdict.CORRECTION, value="loan")
    other.queue.acknowledge(other.queue.give(KEY, "b", second, '"loan"', other.now).feedback_id)
    for console in (one, other):
        console.read(second)
        assert [each.key for each in console.queue.finish(console.now + UNDO_S)] == [KEY]
        assert dict(console.queue.agreement["intent"].pairs) == {('"refund"', '"loan"'): 1}
        assert (console.queue.counts(console.now).judged, console.queue.counts(console.now).elsewhere) == (1, 0)


async def test_no_copy_is_made_late_of_a_pair_or_of_what_was_withdrawn() -> None:
    item = make_item(REVIEW, FOUND, TASKS, NO_PLACE)
    first, second = make_feedback(item, "ann"), make_feedback(item, "bob")
    late, paired, undone = Console(), Console(), Console()
    for console in (late, paired, undone):
        console.read(first)
    assert not await late.look(LATEST_S, first)
    paired.read(second)
    assert not await paired.look(OWN_S, first)
    undone.read(make_feedback(item, "ann", verdict=Verdict.WITHDRAWN, value=first.id))
    assert not await undone.look(OWN_S, first)


def test_what_is_kept_for_copies_is_bounded() -> None:
    copies = SecondCopies(1.0)
    for number in range(MOST_REVIEWS + 5):
        made = REVIEW.model_copy(update={"prediction_id": f"{number:032x}"})
        copies.take_reviews([SimpleNamespace(value=made.model_dump_json().encode())])
    assert len(copies._reviews) == MOST_REVIEWS
