"""A pair is made only where two different answers to one text were judged, one up and one down."""

import pytest
from ingest_sets import make_in
from ingest_world import World

from murmura.runtime.testing.fakes import classified


@pytest.fixture
def make(tmp_path):
    return make_in(tmp_path)


def ask(world: World, text: str, label: str, score: float = 0.8) -> str:
    return world.ask(text, {"intent": classified(label, score, ("none", 0.1))})


def test_one_answer_up_and_another_down_make_a_pair(make):
    world = World()
    good, bad = ask(world, "money back", "refund"), ask(world, "money back", "praise")
    world.judge(good, verdict="up")
    world.judge(bad, verdict="down", minute=1)
    (row,) = make(world).lines("pairs.jsonl")
    assert (row["task"], row["agent"], row["text"], row["part"]) == ("intent", "classification", "money back", "train")
    assert [row[side]["output"]["label"] for side in ("chosen", "rejected")] == ["refund", "praise"]
    assert [row[side]["prediction_id"] for side in ("chosen", "rejected")] == [good, bad]


@pytest.mark.parametrize(
    "verdicts",
    [
        [("a", "x", "up"), ("b", "x", "down")],  # one answer
        [("a", "x", "up"), ("a", "y", "up")],
        [("a", "x", "down"), ("a", "y", "down")],
        [("a", "x", "up"), ("b", "x", "down"), ("c", "y", "down")],  # nobody's majority
        [("a", "x", "up"), ("a", "x", "down"), ("b", "y", "down")],  # the last one counts
        [("a", "x", "up")],
    ],
)
def test_no_other_judgements_make_one(make, verdicts):
    world = World()
    for minute, (person, label, verdict) in enumerate(verdicts):
        # The same answer again, with another score.
        world.judge(ask(world, "text", label, 0.8 - minute / 100), verdict=verdict, by=person, minute=minute)
    assert make(world).lines("pairs.jsonl") == []


def test_what_does_not_count_makes_no_pair_and_other_texts_are_other_pairs(make):
    world = World()
    good, bad = ask(world, "text", "x"), ask(world, "text", "y")
    world.judge(good, verdict="up", consent=False)
    world.judge(bad, verdict="down")
    world.judge(ask(world, "another", "x"), verdict="up")
    assert make(world).lines("pairs.jsonl") == []
    world.judge(good, verdict="up", by="bob")
    world.judge(ask(world, "text", "z"), verdict="down", by="bob")
    rejected = [row["rejected"]["output"]["label"] for row in make(world).lines("pairs.jsonl")]
    assert rejected == ["y", "z"]
