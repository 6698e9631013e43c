"""Which predictions people are asked about: the most doubtful ones, at most so many."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_dispatcher import Line

from murmura.runtime.agent.routes import make_routes
from murmura.runtime.batching.policy import Entry
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.output.reviews import DoubtPolicy, Reviews, TokenBucket
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel, ManualClock, abstained, classified, labelled
from murmura.runtime.wire.request import Incoming
from murmura.schemas.manifest import TaskSpec, Thresholds
from murmura.schemas.review import Review, ReviewReason

INTENT = TaskSpec(
    name="intent",
    kind="classification",
    labels=["refund", "praise", "other"],
    out_of_scope="other",
    thresholds=Thresholds(out_of_scope=0.5),
)
TOPICS = TaskSpec(name="topics", kind="multi_label", labels=["cards"])
MODEL = FakeModel([INTENT, TOPICS], version=3)


def entry(output: dict | None, thresholds=None, task: str = "intent") -> Entry:
    made = Entry("", (task,), None, None, thresholds=thresholds, model=MODEL)
    made.outputs = None if output is None else {task: output, "topics": labelled(cards=0.5)}
    return made


@given(
    st.floats(0.5, 600),
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 300)), min_size=1, max_size=60),
)
def test_a_bucket_gives_no_more_than_its_rate_and_one_burst(per_minute, asks):
    now, given_out = 0.0, 0
    bucket = TokenBucket(per_minute, now)
    burst = max(1.0, per_minute / 6)
    for pause, wanted in asks:
        now += pause
        count = min(wanted, bucket.left(now))
        bucket.take(count)
        given_out += count
        assert given_out <= burst + now * per_minute / 60 + 1e-6


def test_a_bucket_fills_again_at_its_rate():
    bucket = TokenBucket(6, 0.0)
    bucket.take(bucket.left(0.0))
    assert [bucket.left(now) for now in (5.0, 9.99, 10.0)] == [0, 0, 1]
    assert bucket.left(1e9) == 1


scores = st.floats(0.01, 0.99)


@given(st.lists(st.tuples(scores, scores), max_size=40), st.integers(1, 5))
def test_the_closest_answers_are_found_worst_first(pairs, most):
    pairs = [(max(pair), min(pair)) for pair in pairs]
    entries = [entry(classified("refund", a, ("praise", b))) for a, b in pairs]
    found = DoubtPolicy(0.2, 0.1).find(entries, most)
    margins = sorted(a - b for a, b in pairs if a - b < 0.2)
    assert [pairs[doubt.row][0] - pairs[doubt.row][1] for doubt in found] == pytest.approx(margins[:most])


def test_a_score_near_the_threshold_of_being_out_of_scope_is_doubtful():
    near = entry(classified("refund", 0.52, ("other", 0.46)))  # its margin is more harmless than its distance
    far = entry(classified("refund", 0.95, ("other", 0.05)))
    beyond = entry(abstained("other", 0.97, "out_of_scope"))
    policy = DoubtPolicy(margin=0.01, band=0.1)
    (doubt,) = policy.find([far, near, beyond], 5)
    assert (doubt.row, doubt.why, doubt.out_of_scope, doubt.threshold) == (1, ReviewReason.OUT_OF_SCOPE, 0.46, 0.5)


def test_thresholds_of_the_settings_move_the_place_of_doubt():
    output = classified("refund", 0.7, ("other", 0.2))
    moved = {"intent": Thresholds(out_of_scope=0.21)}
    found = DoubtPolicy(0.01, 0.05).find([entry(output), entry(output, moved)], 5)
    assert [(doubt.row, doubt.threshold) for doubt in found] == [(1, 0.21)]


def test_an_answer_counts_once_and_what_failed_or_has_no_second_label_not_at_all():
    entries = [entry(None), entry(classified("refund", 1.0)), entry(classified("refund", 0.5, ("other", 0.49)))]
    assert [doubt.row for doubt in DoubtPolicy(0.2, 0.1).find(entries, 5)] == [2]


def test_without_a_budget_there_is_nobody_to_ask():
    assert Reviews.from_settings(Settings()) is None
    reviews = Reviews.from_settings(Settings(prefix="acme", reviews={"per_minute": 6}))
    assert reviews is not None
    assert reviews.topic == "acme.reviews"


def test_budget_is_spent_on_doubts_only_and_comes_back():
    clock = ManualClock()
    reviews = Reviews("reviews", "shop", per_minute=6, margin=0.2, band=0.1, clock=clock)
    sure, unsure = (
        entry(classified("refund", 0.99, ("praise", 0.01))),
        entry(classified("refund", 0.5, ("praise", 0.5))),
    )
    assert reviews.pick([sure]) == []
    assert len(reviews.pick([unsure, unsure])) == 1
    assert reviews.pick([unsure]) == []
    clock.advance(10)
    assert len(reviews.pick([unsure])) == 1


def test_a_record_is_what_the_schema_says_and_has_no_text():
    reviews = Reviews("reviews", "shop", per_minute=6, margin=0.2, band=0.1)
    text = "a secret text"
    doubtful = entry(classified("refund", 0.52, ("other", 0.46), ("praise", 0.02)))
    (doubt,) = reviews.pick([doubtful])
    request = Incoming(text, request_id="r1", topic="in", partition=2, offset=7, timestamp=5, value=text.encode())
    message = reviews.message(doubt, doubtful, "classification", request, "2026-01-05T09:40:00.123Z")
    review = Review.model_validate_json(message.value)
    assert (message.topic, message.key) == ("reviews", review.key.encode())
    assert set(json.loads(message.value)) <= set(Review.model_fields)
    assert (review.predicted, review.score, review.margin, review.model.version) == ("refund", 0.52, 0.06, 3)
    assert (review.source.topic, review.source.partition, review.source.offset) == ("in", 2, 7)
    assert text.encode() not in message.value
    assert dict(message.headers)["ce_type"] == b"murmura.review.v1"


async def test_in_the_way_of_records_the_doubtful_one_is_asked_about_beside_its_result():
    line = Line(FakeModel([INTENT], {"hm": {"intent": classified("refund", 0.4, ("praise", 0.39))}}))
    line.feeding.cancel()
    line.dispatcher = Dispatcher(
        line.engine,
        line.broker,
        line.tracker,
        line.metrics,
        routes=make_routes(line.agents, line.model.manifest, "test"),
        dead_letters="dead",
        max_value_bytes=1000,
        reviews=Reviews("reviews", "test", per_minute=60, margin=0.2, band=0.1),
    )
    line.feeding = asyncio.create_task(line.dispatcher.run())
    line.receive("fine", "hm", "fine")
    await line.settle()
    results = [json.loads(message.value) for message in line.broker.taken if message.topic == "out"]
    (review,) = [Review.model_validate_json(m.value) for m in line.broker.taken if m.topic == "reviews"]
    assert len(results) == 3
    assert review.prediction_id == next(r["prediction_id"] for r in results if r["source"]["offset"] == 1)
    assert line.committable == 3
    assert line.metrics.registry.get_sample_value(
        "murmura_reviews_total", {"agent": "classification", "task": "intent", "why": "margin"}
    )
