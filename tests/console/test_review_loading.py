"""Which reviews become items, when they are sent, and what is said of the others."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka.structs import TopicPartition
from review_items import make_feedback, make_item, make_task
from starlette.applications import Starlette
from structlog.testing import capture_logs

from murmura.console.assembly import Console
from murmura.console.reading.follower import Feed, Follower
from murmura.console.review.item import Guess, Place
from murmura.console.review.kafka_reviews import KafkaReviews, take_feedback
from murmura.console.review.known_verdicts import KnownVerdicts
from murmura.console.review.live import LiveReviews
from murmura.console.review.loading import NotReviewed
from murmura.console.review.loading import make_item as load_item
from murmura.console.review.queue import ReviewQueue
from murmura.console.review.requests import REPLY, Found, merge_windows, search_window
from murmura.console.review.second_copies import SecondCopies
from murmura.console.review.sending import VerdictSender
from murmura.console.review.tasks import EntryForm
from murmura.console.server import serve
from murmura.runtime.errors import DeliveryError
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import classified
from murmura.runtime.wire.feedback import to_record
from murmura.runtime.wire.message import Message
from murmura.runtime.wire.request import Incoming
from murmura.schemas.feedback import Verdict
from murmura.schemas.result import ModelRef, Source
from murmura.schemas.review import ExampleRef, Review, ReviewReason

ID = "a" * 32
SOURCE = Source(topic="requests", partition=0, offset=7, timestamp=1_000)
PLACE = Place("reviews", 0, 1)
TASKS = {"intent": make_task()}


def review(**fields: Any) -> Review:
    made = {
        "prediction_id": ID,
        "agent": "classification",
        "task": "intent",
        "why": ReviewReason.MARGIN,
        "source": SOURCE,
    }
    made |= {"model": ModelRef(name="desk", version=3), "predicted": "refund", "score": 0.5, "at": datetime.now(UTC)}
    return Review(**made | fields)


def found(text: str = "my money", outputs: dict | None = None, timestamp: int = 1_000) -> Found:
    request = Incoming(text, request_id="r", topic="requests", offset=7, timestamp=timestamp)
    return Found({("requests", 0, 7): request}, {} if outputs is None else {ID: outputs})


def test_the_answer_says_what_a_confirmation_would_stand_for() -> None:
    item = load_item(review(), found(outputs={"intent": classified("loan", 0.6, ("refund", 0.4))}), TASKS, PLACE)
    assert (item.text, item.guess, item.place) == ("my money", Guess("loan", 0.6, '"loan"'), PLACE)
    assert load_item(review(), found(), TASKS, PLACE).guess == Guess("refund", 0.5, '"refund"')
    assert (
        load_item(review(), found(outputs={"intent": {"kind": "classification"}}), TASKS, PLACE).guess.value == "refund"
    )


@pytest.mark.parametrize("output", [{"score": "high"}, {"score": 10**400}, {"label": ["loan"]}, ["loan"]])
def test_a_foreign_answer_leaves_a_guess_that_can_be_shown(output: Any) -> None:
    answer = output if isinstance(output, list) else classified("loan", 0.6) | {"alternatives": []} | output
    guess = load_item(review(), found(outputs={"intent": answer}), TASKS, PLACE).guess
    assert (guess.value, guess.score) in {("loan", 0.5), ("refund", 0.5)}


def test_a_reply_of_a_policy_is_edited_without_a_task_of_the_model() -> None:
    asked = review(agent="dialogue", task="reply", why=ReviewReason.LOW_SCORE, predicted=None)
    item = load_item(asked, found(outputs={REPLY: {"text": "How much?"}}), TASKS, PLACE)
    assert (item.task.form, item.guess.value, item.guess.score) == (EntryForm.REPLY, "How much?", 0.5)


@pytest.mark.parametrize(
    ("asked", "there", "why"),
    [
        (review(), Found(), NotReviewed.REQUEST_GONE),
        (review(), found(timestamp=2_000), NotReviewed.REQUEST_GONE),  # the topic was made anew
        (review(task="mood"), found(), NotReviewed.UNKNOWN_TASK),
        (
            review(
                prediction_id=None, source=None, why=ReviewReason.LABEL_ERROR, example=ExampleRef(file="a.csv", line=3)
            ),
            found(),
            NotReviewed.NO_PREDICTION,
        ),
    ],
)
def test_what_cannot_be_reviewed_says_why(asked: Review, there: Found, why: NotReviewed) -> None:
    assert load_item(asked, there, TASKS, PLACE) is why


def test_answers_are_searched_about_when_they_were_published() -> None:
    at = datetime.fromtimestamp(100, UTC)
    assert search_window(review(at=at)) == (99.0, 105.0)
    assert search_window(review(at=at, why=ReviewReason.SUGGESTED)) == (0.0, 61.0)
    assert merge_windows([(5, 9), (0, 2), (1, 3)]) == [(0, 3), (5, 9)]


async def test_a_verdict_is_sent_until_the_broker_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("murmura.console.review.sending._PAUSE_S", 0.0)
    monkeypatch.setattr("murmura.console.review.sending._TURN_S", 0.01)
    answers: list[DeliveryError | None] = [DeliveryError("no room"), None]
    sent: list[Message] = []

    class Broker:
        async def publish(self, messages: list[Message], /) -> list[DeliveryError | None]:
            sent.extend(messages)
            return [answers.pop(0)]

    queue, item = ReviewQueue(0.0), make_item()
    queue.add(item)
    feedback = make_feedback(item, "ann")
    queue.give(item.key, "a", feedback, "refund", 0.0)
    sender = VerdictSender(queue, Broker(), "feedback")
    task = asyncio.create_task(sender.run())
    async with asyncio.timeout(5):
        while queue.unsent:
            await asyncio.sleep(0)
    task.cancel()
    assert [message.key for message in sent] == [feedback.id.encode()] * 2
    assert sender.refused is None


class BrokenReader:
    """A member of the group that reads a review whose answer is not there yet, and then loses the broker, or is cancelled."""

    uncommitted = 0

    def __init__(self, *args: Any) -> None:
        self.finished: list[tuple[Any, ...]] = []
        self.errors: list[BaseException] = [OSError("away"), asyncio.CancelledError()]

    def __call__(self, *args: Any) -> "BrokenReader":
        return self

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def finish(self, *place: Any) -> None:
        self.finished.append(place)

    async def read(self, count: int) -> list[Any]:
        raise self.errors.pop(0)


async def test_a_hiccup_of_the_broker_leaves_undo_and_the_end_of_the_console_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def require(*args: Any) -> None: ...

    reader, queue, item = BrokenReader(), ReviewQueue(0.0), make_item()
    monkeypatch.setattr("murmura.console.review.kafka_reviews.GroupReader", reader)
    monkeypatch.setattr("murmura.console.review.kafka_reviews.require_topics", require)
    reviews = KafkaReviews(Settings().kafka, "g", "reviews", queue, TASKS, None, KnownVerdicts(), lambda: 1.0)
    reviews._add(item, PLACE)
    reviews._waiting.append((review(), PLACE))
    feedback = make_feedback(item, "ann")
    queue.acknowledge(queue.give(item.key, "a", feedback, "refund", 0.0).feedback_id)
    with pytest.raises(OSError, match="away"):
        await reviews._read_on()
    assert (list(reviews._waiting), reader.finished) == ([], [])
    queue.add(item)  # it is read again
    assert queue.undoable("ann") == (item, feedback.id)
    with pytest.raises(asyncio.CancelledError):
        await reviews._read_on()
    assert reader.finished == [PLACE]


async def test_the_end_of_the_console_waits_for_unsent_verdicts_and_says_what_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("murmura.console.review.live._LOOK_S", 0.001)
    reviews, items, done = LiveReviews(Settings(), TASKS), [make_item(0), make_item(1)], []
    for item in items:
        reviews.queue.add(item)
        reviews.queue.give(item.key, "a", make_feedback(item, "ann"), "refund", 0.0)
    reviews.queue.acknowledge(next(iter(reviews.queue.unsent)))

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            done.append(list(reviews.queue.unsent))

    async def close() -> None:
        asyncio.get_running_loop().call_later(0.01, reviews.queue.acknowledge, next(iter(reviews.queue.unsent)))
        await reviews.send_rest()

    stop = asyncio.Event()
    made = Console(Starlette(), [], None, [run], [close])
    await serve(made, ("127.0.0.1", 0), stop=stop, ready=lambda url: stop.set())
    assert done == [[]]
    monkeypatch.setattr("murmura.console.review.live._REST_S", 0.01)
    reviews.queue.give(items[0].key, "b", make_feedback(items[0], "bob"), "loan", 0.0)
    with capture_logs() as logs:
        await reviews.send_rest()
    assert [(each["verdicts"], each["withdrawals"]) for each in logs] == [(1, 0)]


async def test_reviews_wait_for_the_verdicts_alone_and_say_that_the_broker_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reviews = LiveReviews(Settings(), TASKS)
    reviews.labelled.set()
    monkeypatch.setattr(reviews, "_connect", asyncio.Event().wait)
    follower = Follower(Settings().kafka, [reviews.feed, Feed("deadletters", lambda records: None, 9)])
    follower._ends = {TopicPartition(topic, 0): 3 for topic in (reviews.feed.topic, "deadletters")}
    follower.trouble = "it is away"

    class Consumer:
        async def position(self, partition: TopicPartition) -> int:
            return 0 if partition.topic == "deadletters" else 3

    task = asyncio.create_task(reviews.run(follower))
    await asyncio.sleep(0)
    assert (reviews.facts().trouble, reviews.facts().ready) == ("it is away", False)
    await follower._note_progress(Consumer())
    await asyncio.sleep(0)
    assert (reviews.facts().trouble, reviews.facts().ready) == (None, True)
    assert not follower.caught_up.is_set()
    task.cancel()


class Received:
    def __init__(self, feedback: Any) -> None:
        self.value = to_record(feedback, "feedback")["value"]


def test_a_verdict_of_another_console_is_told_and_ones_own_undone_one_is_not() -> None:
    queue, known, items = ReviewQueue(0.0), KnownVerdicts(), [make_item(0), make_item(1)]
    for item in items:
        queue.add(item)
    take = take_feedback(known, queue, SecondCopies(0.0), lambda: 0.0)
    queue.hold("a", "ann", 0.0)
    take([Received(make_feedback(items[0], "bob"))])
    assert queue.judges_to_tell(items[0].key, "ann") == ("bob",)
    own = make_feedback(items[1], "ann")
    queue.give(items[1].key, "a", own, "refund", 0.0)
    queue.undo("a", make_feedback(items[1], "ann", verdict=Verdict.WITHDRAWN, value=own.id), 0.0)
    take([Received(own)])  # it comes late
    assert queue.hold("a", "ann", 0.0)[0] == items[1]
