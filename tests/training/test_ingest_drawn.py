"""Predictions that were drawn at random are held out, and their rows say so."""

import random

import pytest
from ingest_sets import OUTPUTS, TEXT, Made, make_in
from ingest_world import World

from murmura.training.ingest.earlier import earlier_sets


@pytest.fixture
def make(tmp_path):
    return make_in(tmp_path)


def parts(made: Made, task: str = "intent") -> dict[str, dict[str, float | None]]:
    """By part and text: the probability with which it was drawn."""
    return {
        part: {row["text"]: row.get("sampling_rate") for row in made.rows(task, part)} for part in ("train", "heldout")
    }


def test_what_was_drawn_and_judged_is_held_out_and_names_the_probability(make):
    world = World()
    for number in range(20):
        this = world.ask(f"text {number}")
        world.judge(this, "refund")
        if number < 3:
            world.draw(this, rate=0.02)
    world.draw(world.ask("never judged"))
    world.draw(world.ask("text 19"), why="margin")
    made = make(world)
    found = parts(made)
    assert found["heldout"] == {f"text {number}": 0.02 for number in range(3)}
    assert set(found["train"].values()) == {None}
    assert (made.manifest.counts["drawn_at_random"], made.manifest.counts["drawn_and_judged"]) == (4, 3)
    assert "4 predictions were drawn at random for review; 3 held-out texts" in (made.folder / "report.md").read_text()


def test_a_text_that_was_drawn_is_trained_on_in_no_spelling_for_no_task_and_before_nobody_judged_it(make):
    world = World()
    world.draw(world.ask(TEXT, OUTPUTS))  # never judged itself
    world.judge(world.ask(TEXT.upper(), OUTPUTS), "refund")
    world.judge(world.ask(TEXT, OUTPUTS), ["cards"], task="topics")
    world.judge(world.ask("another text"), "refund")
    made = make(world)
    assert parts(made) == {"train": {"another text": None}, "heldout": {TEXT.upper(): None}}
    assert parts(made, "topics") == {"train": {}, "heldout": {TEXT: None}}


def test_only_the_task_that_was_drawn_belongs_to_the_sample(make):
    world = World()
    this = world.ask(TEXT, OUTPUTS)
    world.draw(this, task="topics", rate=0.5)
    world.judge(this, "refund")
    world.judge(this, ["cards"], task="topics")
    made = make(world)
    assert (parts(made)["heldout"], parts(made, "topics")["heldout"]) == ({TEXT: None}, {TEXT: 0.5})


def test_the_conversation_of_what_was_drawn_is_held_out_with_it_unless_texts_are_split(make):
    world = World()
    for number in range(4):
        this = world.ask(f"text {number}", key=b"talk %d" % (number // 2))
        world.judge(this, "refund")
    world.draw(this)
    assert set(parts(make(world))["heldout"]) == {"text 2", "text 3"}
    assert set(parts(make(world, split="text"))["heldout"]) == {"text 3"}


def test_what_an_earlier_data_set_trained_on_stays_there_and_is_not_of_the_sample(make):
    world = World()
    this = world.ask("text")
    world.judge(this, "refund")
    before = make(world)
    world.draw(this)
    made = make(world, earlier=earlier_sets([before.folder]))
    assert parts(made) == {"train": {"text": None}, "heldout": {}}


def test_a_prediction_that_was_drawn_twice_and_records_that_are_none_change_no_byte(make):
    world = World()
    this = world.ask("text")
    world.judge(this, "refund")
    world.draw(this, rate=0.2)
    world.draw(this, rate=0.4)
    for value in (b"{", None, b'{"why": "random", "task": "intent", "prediction_id": "zz", "sampling_rate": 1}'):
        world.add("reviews", value, partition=1)
    first = make(world)
    assert parts(first)["heldout"] == {"text": 0.4}
    assert make(world, order=random.Random(3)).bytes() == first.bytes()
