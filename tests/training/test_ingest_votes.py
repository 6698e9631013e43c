"""Whose word stands: unfit last verdicts, denials, and a text that very many people judged."""

import json
import tracemalloc

import pytest
from ingest_sets import OUTPUTS, TEXT, make_in
from ingest_world import World

from murmura.runtime.testing.fakes import abstained, classified
from murmura.training.ingest.manifest import TaskLabels


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
        world.judge(this, ("refund", "praise", "thanks")[n % 3], by=f"person {n}", consent=n % 7 > 0)
    return world


def test_a_line_of_contradictions_is_written_as_every_other(make):
    (line,) = (make(judged_by(30)).folder / "contradictions.jsonl").read_text().splitlines()
    assert line == json.dumps(json.loads(line), ensure_ascii=False)
    assert [len(value["said_by"]) for value in json.loads(line)["values"]] == [8, 8, 9]


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


@pytest.mark.parametrize(
    ("refund", "praise", "label"), [(2, 1, "refund"), (3, 2, "refund"), (1, 4, "praise"), (99, 1, "refund")]
)
def test_what_more_than_half_of_the_people_say_stands_and_the_others_are_outvoted(make, refund, praise, label):
    world = World()
    this = world.ask("x")
    said = {value: [world.judge(this, value, by=f"{value} {n}") for n in range(count)] for value, count in
            (("refund", refund), ("praise", praise))}  # fmt: skip
    made = make(world)
    (row,) = made.rows()
    assert (row["label"], row["people"]) == (label, max(refund, praise))
    outvoted = [name for value, names in said.items() if value != label for name in names]
    assert made.left_out() == dict.fromkeys(outvoted, "outvoted")
    assert made.lines("contradictions.jsonl") == []
    assert made.manifest.counts["used"] == max(refund, praise)


@pytest.mark.parametrize("votes", [["refund", "praise"], ["refund", "refund", "praise", "other"], ["a", "b", "c"]])
def test_without_a_majority_the_text_is_a_contradiction(make, votes):
    world = World()
    this = world.ask("x")
    names = [world.judge(this, value, by=f"person {n}") for n, value in enumerate(votes)]
    made = make(world)
    assert (made.rows(), made.left_out()) == ([], dict.fromkeys(names, "contradiction"))
    assert len(made.lines("contradictions.jsonl")) == 1


@pytest.mark.parametrize(("deniers", "stands"), [(1, True), (2, False), (3, False)])
def test_who_denies_an_answer_votes_against_it(make, deniers, stands):
    world = World()
    this = world.ask("x")
    for n in range(2):
        world.judge(this, by=f"for {n}")
    down = [world.judge(this, verdict="down", by=f"against {n}") for n in range(deniers)]
    made = make(world)
    assert made.labels() == (["other"] if stands else [])
    assert {made.left_out()[name] for name in down} == {"outvoted" if stands else "contradiction"}


@pytest.mark.parametrize(
    ("by", "operators", "stands"), [("ann", [], False), ("eve", [], True), ("eve", ["eve"], False)]
)
def test_only_its_author_or_an_operator_withdraws_feedback(make, by, operators, stands):
    world = World()
    first = world.judge(world.ask("x"), "refund", by="ann")
    back = world.judge("0" * 32, first, verdict="withdrawn", by=by)
    made = make(world, operators=operators)
    assert made.labels() == (["refund"] if stands else [])
    assert made.left_out() == ({back: "foreign_withdrawal"} if stands else {first: "withdrawn"})


def test_a_withdrawal_that_is_withdrawn_takes_nothing_back(make):
    world = World()
    first = world.judge(world.ask("x"), "refund")
    names = [first]
    for minute in range(1, 4):
        names.append(world.judge("0" * 32, names[-1], verdict="withdrawn", minute=minute))
        made = make(world)
        assert made.labels() == ([] if minute % 2 else ["refund"])
    assert made.left_out() == {names[0]: "withdrawn", names[2]: "withdrawn"}


def test_rows_of_one_key_name_one_conversation_that_does_not_show_the_key(make):
    world = World()
    for n, key in enumerate((b"customer 7", b"customer 7", b"customer 8", None)):
        world.judge(world.ask(f"text {n}", key=key), "refund")
    rows = [row for part in ("train", "heldout") for row in make(world).rows(part=part)]
    of = {row["text"]: row.get("conversation") for row in rows}
    assert of["text 0"] == of["text 1"] != of["text 2"]
    assert of["text 3"] is None
    assert "customer" not in str(of)


def test_up_down_and_reward_become_preferences_with_the_text_and_the_answer_that_they_judge(make):
    world = World()
    this = world.ask(TEXT, OUTPUTS, key=b"c-1")
    up = world.judge(this, verdict="up", by="ann", task="topics")
    down = world.judge(this, verdict="down", by="bob")
    reward = world.judge(this, 0.25, verdict="reward", by="eve", minute=3)
    rows = make(world).lines("preferences.jsonl")
    assert [(row["id"], row["verdict"], row["value"], row["by"]) for row in rows] == [
        (up, "up", None, "ann"),
        (down, "down", None, "bob"),
        (reward, "reward", 0.25, "eve"),
    ]
    assert {(row["text"], row["agent"], row["prediction_id"]) for row in rows} == {(TEXT, "classification", this)}
    assert [row["output"] for row in rows] == [OUTPUTS["topics"], OUTPUTS["intent"], OUTPUTS["intent"]]
    assert rows[2]["at"] == "2025-01-31T12:03:00+00:00"
    assert len({row["conversation"] for row in rows}) == 1


def test_preferences_leave_out_what_does_not_count_and_lie_in_the_part_of_their_text(make):
    world = World()
    this = world.ask("x")
    world.judge(this, verdict="up", by="ann")
    last = world.judge(this, verdict="down", by="ann", minute=1)
    world.judge(this, verdict="up", by="bob", consent=False)
    taken = world.judge(this, 1, verdict="reward", by="carl")
    world.judge("0" * 32, taken, verdict="withdrawn", by="carl")
    world.judge("f" * 32, verdict="up", by="dora")
    world.judge(this, verdict="up", by="eve", agent="analysis")
    world.judge(this, 1, verdict="reward", by="fred", task="gone")
    rows = make(world).lines("preferences.jsonl")
    assert [row["id"] for row in rows] == [last]
    for number in range(40):
        world.judge(world.ask(f"text {number}"), verdict="up", by="gina")
        world.judge(world.ask(f"text {number}"), "refund", by="hugo")
    made = make(world, heldout=0.5)
    held_out = {row["text"] for row in made.rows(part="heldout")}
    found = {row["text"]: row["part"] for row in made.lines("preferences.jsonl") if row["text"] != "x"}
    assert {text for text, part in found.items() if part == "heldout"} == held_out
    assert 5 < len(held_out) < 35


SPELLINGS = ["Pay  my bill", "pay my BILL", "\uff30ay my bill "]


def test_verdicts_on_one_text_in_several_spellings_are_counted_together_and_the_newest_is_kept(make):
    world = World(partitions=1)
    for minute, (text, label) in enumerate(zip(SPELLINGS, ("refund", "refund", "praise"), strict=True)):
        world.judge(world.ask(text), label, by=f"person {minute}", name=f"said {minute}", minute=minute)
    made = make(world, heldout=0)
    (row,) = made.rows()
    assert (row["text"], row["label"], row["people"]) == (SPELLINGS[1], "refund", 2)
    assert made.left_out() == {"said 2": "outvoted"}


def test_people_who_disagree_on_spellings_of_one_text_contradict(make):
    world = World(partitions=1)
    names = [world.judge(world.ask(text), label, by=label) for text, label in zip(SPELLINGS, ("refund", "praise"))]  # noqa: B905
    made = make(world)
    assert (made.rows(), made.left_out()) == ([], dict.fromkeys(names, "contradiction"))
    (line,) = made.lines("contradictions.jsonl")
    assert line["text"] in SPELLINGS
    assert {value["label"] for value in line["values"]} == {"refund", "praise"}


def test_a_person_who_judges_another_spelling_later_changes_the_verdict(make):
    world = World(partitions=1)
    first = world.judge(world.ask(SPELLINGS[0]), "refund", minute=1)
    world.judge(world.ask(SPELLINGS[1]), "praise", minute=2)
    made = make(world)
    assert (made.labels(), made.left_out()) == (["praise"], {first: "superseded"})


@pytest.mark.parametrize(("other", "rows"), [("wire money to BERLIN now", 1), ("wire  money to berlin now", 2)])
def test_spans_are_counted_together_where_their_offsets_hold_in_both_spellings(make, other, rows):
    world = World(partitions=1)
    for minute, text in enumerate(("wire money to Berlin now", other)):
        start = text.lower().index("berlin")
        span = {"label": "city", "start": start, "end": start + 6}
        world.judge(world.ask(text, OUTPUTS), [span], task="places", by=f"person {minute}", minute=minute)
    made = make(world, heldout=0)
    assert [row["text"][row["spans"][0]["start"] : row["spans"][0]["end"]].lower() for row in made.rows("places")] == [
        "berlin"
    ] * rows
