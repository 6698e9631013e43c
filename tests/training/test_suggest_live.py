"""Which live texts are suggested, and what reviewers are asked."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_world import World
from tiny_model import INTENT, TOPICS, write_tiny_model

from murmura.runtime.model.model import Model
from murmura.schemas.result import ModelRef
from murmura.schemas.review import REVIEW_TYPE, Review, ReviewReason
from murmura.training.data.near_texts import near_form, near_id
from murmura.training.suggest.choose import Chooser, Wanted
from murmura.training.suggest.live import Unjudged, make_message, make_review
from murmura.training.suggest.pool import Candidate
from murmura.training.suggest.strategy import Strategy

DESK = ModelRef(name="desk", version=3)


def read(world: World, latest: int = 100, **options: Any) -> Unjudged:
    """Feed the records of a world as they are read from Kafka."""
    found = Unjudged(world.plan(**options), INTENT, latest)
    for number in range(world.partitions):
        found.take_feedback(number, world.logs[world.topic("feedback")][number])
        found.take_reviews(number, world.logs[world.topic("reviews")][number])
    for number, each in enumerate(found.results):
        found.take_results(number, world.logs[each.topic][each.partition][each.start : each.end])
    found.results_done()
    for number, each in enumerate(found.requests):
        found.take_judged(number, world.logs[each.topic][each.partition])
    for number, each in enumerate(found.requests):
        found.take_requests(number, world.logs[each.topic][each.partition])
    found.requests_done()
    return found


def test_what_people_have_judged_or_were_asked_about_is_left_out_whether_they_consented_or_not() -> None:
    world = World()
    asked = world.ask("my card was lost")
    world.judge(world.ask("hello"), "refund", consent=False)
    world.draw(world.ask("thanks"), why="margin")
    world.judge(world.ask("refund my order"), "x", task="another")
    world.ask("of another task", {"mood": {"kind": "classification"}})
    world.ask("too late", {}, status="expired")
    found = read(world)
    assert [(given, answered.prediction_id == asked) for given, answered in found.texts] == [
        ("my card was lost", True),
        ("refund my order", False),
    ]
    assert found.left_out == 2


def test_a_text_is_asked_about_once_whichever_agents_answered_it_and_however_often_it_came() -> None:
    world = World()
    first = world.add("requests", {"text": "my card was lost"})
    this = world.answer(first)
    world.answer(first, agent="analysis")
    world.ask("My card  was LOST")
    found = read(world)
    assert (found.answered, [given for given, _ in found.texts]) == (2, ["my card was lost", "My card  was LOST"])
    world.draw(this, why="suggested")
    found = read(world)
    assert ([given for given, _ in found.texts], found.judged) == (["My card  was LOST"], 1)
    assert near_id(near_form("my card was lost")) in found.known


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_each_answered_request_is_judged_unread_or_a_text(data: st.DataObject) -> None:
    world, asked, judged = World(), set(), set()
    for number in range(data.draw(st.integers(0, 8))):
        request = world.add("requests", data.draw(st.sampled_from([{"text": f"text {number}"}, b"no request"])))
        agents = data.draw(st.sets(st.sampled_from(["classification", "analysis"])))
        for agent in sorted(agents):
            asked.add(number)
            if data.draw(st.booleans()):
                judged.add(number)
                world.judge(world.answer(request, agent=agent), "refund")
            else:
                world.answer(request, agent=agent)
    found = read(world)
    assert (found.answered, found.judged) == (len(asked), len(judged))
    assert len(found.texts) + found.left_out == found.answered


def test_only_the_latest_results_count_and_each_partition_has_its_share() -> None:
    world = World()
    for number in range(20):
        world.ask(f"text {number}", partition=number % 2)
    found = read(world, latest=4)
    assert sorted(given for given, _ in found.texts) == ["text 16", "text 17", "text 18", "text 19"]
    assert found.next_wanted(0, 0) == 8
    assert found.next_wanted(0, 10) > 10


def test_a_request_at_the_same_place_in_a_new_topic_is_not_taken_for_the_one_that_was_answered() -> None:
    world = World()
    world.ask(
        "my card was lost", source={"topic": world.topic("requests"), "partition": 0, "offset": 0, "timestamp": 1}
    )
    found = read(world)
    assert (found.texts, found.left_out) == ([], 1)


def test_a_review_has_the_reason_the_place_and_no_text(tmp_path) -> None:
    world = World()
    this = world.ask("my card was lost")
    write_tiny_model(tmp_path / "tiny")
    chooser = Chooser(Wanted(INTENT, Strategy.MARGIN, 3), Model.load(tmp_path / "tiny", device="cpu"))
    chooser.offer(read(world).texts)
    (chosen,) = chooser.finish().chosen
    review = make_review(chosen, INTENT, DESK)
    assert (review.why, review.prediction_id, review.agent) == (ReviewReason.SUGGESTED, this, "classification")
    assert (review.source and review.source.offset, review.predicted in INTENT.labels) == (0, True)
    message = make_message(review, "murmura.reviews")
    assert b"card" not in message.value.replace(b"card_lost", b"")
    assert (message.key, dict(message.headers)["ce_type"]) == (this.encode(), REVIEW_TYPE.encode())
    assert Review.model_validate_json(message.value) == review


def test_a_review_of_several_labels_has_no_score() -> None:
    world = World()
    world.ask("my card was lost")
    ((given, answered),) = read(world).texts
    review = make_review(Candidate(given, answered, 1.0, {"kind": "multi_label", "labels": []}), TOPICS, DESK)
    assert (review.predicted, review.score) == (None, None)


@pytest.mark.parametrize("latest", [1, 3])
def test_a_bound_below_the_number_of_partitions_reads_one_of_each(latest: int) -> None:
    world = World()
    for number in range(4):
        world.ask(f"text {number}", partition=number % 2)
    assert len(read(world, latest=latest).texts) == 2
