"""Which predictions people are asked about: the most doubtful ones, at most so many."""

import asyncio
import json
import random

import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st
from test_dispatcher import Line

from murmura.runtime.agent.routes import make_routes
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.experiments.unit_assignment import Assignment
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.output.delivery import Delivery
from murmura.runtime.output.random_reviews import RandomSample, UnitSample
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
    assert Reviews.from_settings(Settings(reviews={"random_per_minute": 1})) is not None
    assert Reviews.from_settings(Settings(reviews={"random_share": 0.01})) is not None


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


@given(st.floats(1, 200), st.integers(0, 2**32), st.lists(st.tuples(st.floats(0, 5), st.integers(1, 30)), max_size=60))
def test_as_many_answers_are_drawn_as_the_rate_allows_and_each_with_the_probability_that_it_names(rate, seed, batches):
    sample, now = RandomSample(rate, 0.0, random.Random(seed)), 0.0
    budget = 0.0
    for pause, size in batches:
        now += pause
        budget = min(max(1, rate / 6), budget + pause * rate / 60)
        entries = [entry(classified("refund", 1.0)) for _ in range(size)]
        found = sample.take(entries, now)
        assert len({each.row for each in found}) == len(found) <= budget + 1
        expected = min(size, budget)
        budget -= expected
        assert all(each.rate == pytest.approx(expected / size / 2) for each in found)  # one of the two tasks


def test_weighed_by_their_rates_what_is_drawn_stands_for_all_traffic_also_when_that_comes_in_bursts():
    draw, right, wrong = random.Random(1), entry(classified("refund", 1.0)), entry(classified("praise", 1.0))
    sample, now, errors, estimated, drawn, records = RandomSample(60, 0.0, draw), 0.0, 0, 0.0, 0, 0
    for number in range(10_000):
        busy = number % 10 < 3  # answers of busy minutes are wrong more often
        now += 0.5 if busy else 2.0
        entries = [wrong if draw.random() < (0.4 if busy else 0.1) else right for _ in range(20 if busy else 2)]
        errors += entries.count(wrong)
        records += len(entries)
        for each in sample.take(entries, now):
            drawn += 1
            estimated += (entries[each.row] is wrong) / (2 * each.rate)  # one of two tasks is drawn
    assert drawn == pytest.approx(now, rel=0.05)
    assert estimated == pytest.approx(errors, rel=0.05)
    assert errors / records > 0.3


def test_what_has_no_answer_is_not_drawn_and_without_a_budget_nothing_is():
    sample = RandomSample(60, 0.0, random.Random(0))
    assert sample.take([entry(None)] * 3, 10.0) == []
    assert [RandomSample(60, 0.0, random.Random(0)).take([entry(classified("refund", 1.0))], 0.0)] == [[]]


def test_a_random_answer_of_any_kind_is_a_record_with_its_rate_and_is_not_asked_about_twice():
    clock = ManualClock()
    settings = {"per_minute": 60, "margin": 0.2, "band": 0.1}
    reviews = Reviews("reviews", "shop", **settings, random_per_minute=600, clock=clock, draw=random.Random(0))
    clock.advance(10)
    entries = [entry(classified("refund", 0.5, ("praise", 0.5))) for _ in range(40)]
    picked = reviews.pick(entries)
    assert len({(each.row, each.task) for each in picked}) == len(picked)
    drawn = [each for each in picked if each.why is ReviewReason.RANDOM]
    assert sorted(each.row for each in drawn) == list(range(40))
    assert {each.task for each in drawn} == {"intent", "topics"}
    request = Incoming("t", request_id="r1", topic="in", partition=2, offset=7, timestamp=5, value=b"t")
    for each in drawn:
        message = reviews.message(each, entries[each.row], "classification", request, "2026-01-05T09:40:00.123Z")
        review = Review.model_validate_json(message.value)
        assert (review.why, review.task, review.sampling_rate) == (ReviewReason.RANDOM, each.task, 0.5)
        expected = ("refund", 0.5) if each.task == "intent" else (None, None)
        assert (review.predicted, review.score) == expected


def of_unit(unit: str | None, share: float = 0.5, experiment: str = "spring", version: int = 3) -> Entry:
    """An answer to a record of a unit, by the side that the unit is on."""
    record = ConsumerRecord("in", 0, 0, 0, 0, None, b"t", None, -1, 1, ())
    metadata = {} if unit is None else {"shop": unit}
    request = Incoming("t", request_id="r", topic="in", partition=0, offset=0, timestamp=0, metadata=metadata)
    made = entry(classified("refund", 1.0))
    made.context = Delivery(record, None, request)
    made.context.choose_side(Assignment(experiment, "metadata.shop", share))
    return made


def test_of_an_experiment_one_answer_of_each_drawn_unit_is_asked_about_whichever_side_it_is_on():
    sides = [UnitSample(0.25), UnitSample(0.25)]
    units = [f"customer-{number % 200}" for number in range(600)]
    found = [
        sample.take([of_unit(unit, share) for unit in units])[0]
        for sample, share in zip(sides, (0.05, 0.95), strict=True)
    ]
    rows = [{each.row for each in drawn} for drawn in found]
    assert rows[0] == rows[1] == {row for row in rows[0] if row < 200}
    assert len(rows[0]) == pytest.approx(50, abs=20)
    assert sides[0].take([of_unit(unit) for unit in units]) == ([], [])
    ((drawn, *_), _) = sides[0].take([of_unit(unit, experiment="autumn") for unit in units])
    assert (drawn.rate, drawn.experiment) == (0.125, "autumn")  # one of the two tasks


def test_a_unit_of_many_records_is_asked_about_once_and_what_is_remembered_is_bounded():
    sample = UnitSample(1.0, most=3)
    assert len(sample.take([of_unit("a")] * 10_000)[0]) == 1
    assert len(sample.take([of_unit(unit) for unit in "bcd"])[0]) == 3
    assert [each.row for each in sample.take([of_unit(unit) for unit in "dcb"])[0]] == []
    assert len(sample.take([of_unit("a")])[0]) == 1, "the unit that was drawn first is forgotten first"


def test_records_without_a_unit_are_drawn_by_the_minute_and_no_answer_takes_no_unit():
    clock = ManualClock()
    rates = {"per_minute": 0, "margin": 0.2, "band": 0.1, "random_per_minute": 600, "random_share": 1.0}
    reviews = Reviews("reviews", "shop", **rates, clock=clock, draw=random.Random(0))
    clock.advance(10)
    failed = of_unit("a")
    failed.outputs = None
    entries = [failed, of_unit(None), of_unit("b"), of_unit("b")]
    assert [(each.row, each.experiment) for each in reviews.pick(entries)] == [(2, "spring"), (1, None)]
    (asked,) = reviews.pick([of_unit("a")])
    message = reviews.message(asked, entries[2], "a", entries[2].context.request, "2026-01-05T09:40:00Z")
    review = Review.model_validate_json(message.value)
    assert (review.experiment, review.sampling_rate, review.why) == ("spring", 0.5, ReviewReason.RANDOM)


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
