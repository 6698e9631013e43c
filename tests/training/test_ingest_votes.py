"""Whose word stands: unfit last verdicts, denials, and a text that very many people judged."""

import json
import tracemalloc

import pytest
from ingest_sets import OUTPUTS, TEXT, make_in
from ingest_world import World

from murmura.runtime.testing.fakes import abstained, classified
from murmura.training.ingest_manifest import TaskLabels


@pytest.fixture
def make(tmp_path):
    return make_in(tmp_path)


CITY = {"label": "city", "start": 27, "end": 31}
UNFIT = [
    ("places", [CITY], [CITY | {"end": 99}], "spans_outside"),
    ("places", [CITY], [CITY | {"label": "planet"}], "unknown_label"),
    ("intent", "refund", "unheard of", "unknown_label"),
    ("intent", "refund", " ", "blank_label"),
    ("intent", "refund", ["refund"], "wrong_form"),
]
LABELS = {"intent": TaskLabels(labels=["refund", "other"]), "places": TaskLabels(labels=["city", "date"])}


@pytest.mark.parametrize(("task", "fit", "unfit", "reason"), UNFIT)
def test_the_last_verdict_of_a_person_wins_even_when_it_is_unfit(make, task, fit, unfit, reason):
    world = World()
    this = world.ask(TEXT, OUTPUTS)
    first = world.judge(this, fit, task=task, minute=1)
    last = world.judge(this, unfit, task=task, minute=2)
    made = make(world, labels=LABELS)
    assert (made.rows(task), made.left_out()) == ([], {first: "superseded", last: reason})


@pytest.mark.parametrize(("task", "fit", "unfit", "reason"), UNFIT)
def test_an_unfit_verdict_that_was_corrected_later_is_listed_and_does_no_harm(make, task, fit, unfit, reason):
    world = World()
    this = world.ask(TEXT, OUTPUTS)
    first = world.judge(this, unfit, task=task, minute=1)
    world.judge(this, fit, task=task, minute=2)
    world.judge(this, unfit, task=task, by="bob", name="bob")
    made = make(world, labels=LABELS)
    assert (len(made.rows(task)), made.left_out()) == (1, {first: reason, "bob": reason})


def test_who_denies_what_somebody_else_confirmed_contradicts(make):
    world = World()
    this = world.ask("x")
    names = [world.judge(this, by="ann"), world.judge(this, verdict="down", by="bob")]
    made = make(world)
    assert (made.rows(), made.left_out()) == ([], dict.fromkeys(names, "contradiction"))
    assert made.lines("contradictions.jsonl") == [
        {
            "task": "intent",
            "text": "x",
            "values": [
                {
                    "label": "other",
                    "said_by": [{"by": "ann", "feedback": names[0]}],
                    "denied_by": [{"by": "bob", "feedback": names[1]}],
                }
            ],
        }
    ]


def test_who_denies_an_answer_agrees_with_who_corrects_it(make):
    world = World()
    this = world.ask("x")
    world.judge(this, "refund", by="ann")
    down = world.judge(this, verdict="down", by="bob")
    made = make(world)
    assert (made.labels(), made.left_out()) == (["refund"], {down: "no_label"})


def test_a_denial_counts_for_the_answer_that_was_given_then(make):
    world = World()
    world.judge(world.ask("x", {"intent": classified("praise")}), verdict="down", by="bob")
    world.judge(world.ask("x", {"intent": classified("refund")}), by="ann")
    assert make(world).labels() == ["refund"]


@pytest.mark.parametrize(
    "change", [{"consent": False}, {"by": "ann", "minute": -1}], ids=["without consent", "and then confirmed it"]
)
def test_a_denial_that_does_not_count_contradicts_nobody(make, change):
    world = World()
    this = world.ask("x")
    world.judge(this, by="ann")
    world.judge(this, verdict="down", **({"by": "bob"} | change))
    assert make(world).labels() == ["other"]


def test_a_denial_of_no_answer_says_nothing(make):
    world = World()
    down = world.judge(world.ask("x", {"intent": abstained("refund", 0.4)}), verdict="down")
    odd = world.judge(world.ask("y", {"intent": {"kind": "classification"}}), verdict="down")
    assert make(world).left_out() == {down: "no_label", odd: "no_label"}


def judged_by(people: int) -> World:
    world = World(partitions=1)
    this = world.ask("hi")
    for n in range(people):
        world.judge(this, "refund" if n % 2 else "praise", by=f"person {n}", consent=n % 7 > 0)
    return world


def test_a_line_of_contradictions_is_written_as_every_other(make):
    (line,) = (make(judged_by(30)).folder / "contradictions.jsonl").read_text().splitlines()
    assert line == json.dumps(json.loads(line), ensure_ascii=False)
    assert [len(value["said_by"]) for value in json.loads(line)["values"]] == [12, 13]


def test_a_text_that_many_people_judged_takes_no_more_memory(make):
    peaks = []
    for people in (3_000, 12_000):
        world = judged_by(people)
        tracemalloc.start()
        made = make(world)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert made.manifest.counts["contradiction"] == people - -(-people // 7)
    assert peaks[1] < peaks[0] * 1.3
