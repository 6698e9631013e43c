"""What becomes of feedback: every rule once."""

import pytest
from ingest_sets import OUTPUTS, TEXT, Made, make_in
from ingest_world import World

from murmura.runtime.testing.fakes import abstained, classified, tagged
from murmura.training.ingest.files import write_files
from murmura.training.ingest.join import Join
from murmura.training.ingest.manifest import TaskLabels


@pytest.fixture
def make(tmp_path):
    return make_in(tmp_path)


def test_a_correction_becomes_a_row_with_text_label_and_where_it_came_from(make):
    world = World()
    this = world.ask("i want my money back")
    world.judge(this, "refund")
    assert make(world).rows() == [
        {"text": "i want my money back", "label": "refund", "people": 1, "prediction_id": this}
    ]


@pytest.mark.parametrize("expired_first", [True, False])
def test_a_result_that_expired_is_none_that_can_be_judged_and_hides_no_other(make, expired_first):
    world = World()
    request = world.add("requests", {"text": "i want my money back"})
    for is_expired in (expired_first, not expired_first):
        more = {"outputs": {}, "status": "expired"} if is_expired else {}
        this = world.answer(request, **more)
    world.judge(this, "refund")
    lost = world.answer(world.add("requests", {"text": "too late"}), {}, status="expired")
    judged = world.judge(lost, "refund")
    made = make(world)
    assert [row["text"] for row in made.rows()] == ["i want my money back"]
    assert made.left_out() == {judged: "prediction_not_found"}


def test_the_text_is_read_where_the_topic_has_it(make):
    world = World()
    request = world.add("requests", {"payload": {"body": "i want my money back"}})
    world.judge(world.answer(request), "refund")
    inputs = {world.topic("requests"): {"text": "$.payload.body"}}
    assert make(world, inputs=inputs).rows()[0]["text"] == "i want my money back"
    assert make(world).rows() == []


def test_each_kind_of_task_has_rows_as_the_trainer_reads_them(make):
    world = World()
    this = world.ask(TEXT, OUTPUTS)
    world.judge(this, ["travel", "refunds"], task="topics")
    world.judge(
        this, [{"label": "date", "start": 35, "end": 41}, {"label": "city", "start": 27, "end": 31}], task="places"
    )
    made = make(world)
    assert made.labels("topics") == [["refunds", "travel"]]
    spans = made.rows("places")[0]["spans"]
    assert [(TEXT[span["start"] : span["end"]], span["label"]) for span in spans] == [
        ("rome", "city"),
        ("monday", "date"),
    ]


def test_spans_that_are_trimmed_are_counted_and_the_report_says_so(make):
    world = World()
    value = [{"label": "city", "start": 26, "end": 32}, {"label": "date", "start": 35, "end": 41}]
    world.judge(world.ask(TEXT, OUTPUTS), value, task="places")
    world.judge(world.ask(TEXT, OUTPUTS), value, task="places", by="bob", consent=False)
    made = make(world)
    assert made.rows("places")[0]["spans"][0] == {"start": 27, "end": 31, "label": "city"}
    assert made.manifest.counts["trimmed_spans"] == 1
    report = (made.folder / "report.md").read_text()
    assert "1 spans had blanks or invisible characters at their ends, which are cut off." in report


def test_a_confirmation_says_what_was_answered(make):
    world = World()
    this = world.ask(TEXT, OUTPUTS)
    for task in OUTPUTS:
        world.judge(this, task=task)
    made = make(world)
    assert (made.labels(), made.labels("topics")) == (["other"], [["cards", "travel"]])
    assert [span["label"] for span in made.rows("places")[0]["spans"]] == ["city", "date"]


def test_that_a_text_is_out_of_scope_can_be_confirmed_and_that_the_model_was_unsure_cannot(make):
    world = World()
    world.judge(world.ask("what is the weather", {"intent": abstained("other", 0.9, "out_of_scope")}))
    unsure = world.judge(world.ask("hm", {"intent": abstained("refund", 0.4)}))
    made = make(world)
    assert made.labels() == ["other"]
    assert made.left_out() == {unsure: "no_label"}


def test_the_last_verdict_of_a_person_wins_whatever_the_order_of_their_records(make):
    world = World()
    this = world.ask("money back")
    late = world.judge(this, "praise", minute=2, partition=1)
    early = world.judge(this, "refund", minute=1)
    made = make(world)
    assert made.labels() == ["praise"]
    assert made.left_out() == {early: "superseded"}
    assert late not in made.left_out()


def test_of_verdicts_of_one_moment_the_later_record_wins(make):
    world = World()
    this = world.ask("money back")
    world.judge(this, "refund", minute=1)
    world.judge(this, "praise", minute=1)
    assert make(world).labels() == ["praise"]


def test_people_who_contradict_each_other_are_kept_apart_and_reported(make):
    world = World()
    this = world.ask("money back")
    names = [world.judge(this, "refund", by="ann"), world.judge(this, "praise", by="bob")]
    names.append(world.judge(world.ask("thank you"), "praise"))
    made = make(world)
    assert made.labels() == ["praise"]
    assert made.left_out() == dict.fromkeys(names[:2], "contradiction")
    assert made.lines("contradictions.jsonl") == [
        {
            "task": "intent",
            "text": "money back",
            "values": [
                {"label": "praise", "said_by": [{"by": "bob", "feedback": names[1]}]},
                {"label": "refund", "said_by": [{"by": "ann", "feedback": names[0]}]},
            ],
        }
    ]


def test_people_who_agree_make_one_row(make):
    world = World()
    this = world.ask("money back", {"intent": classified("refund", 0.9)})
    world.judge(this, "refund", by="ann")
    world.judge(this, by="bob")
    made = make(world)
    assert [(row["label"], row["people"]) for row in made.rows()] == [("refund", 2)]


def test_equal_texts_collapse_and_a_person_s_last_word_counts_across_them(make):
    world = World()
    for minute, label in enumerate(["praise", "refund"]):
        world.judge(world.ask("money back"), label, minute=minute)
    world.judge(world.ask("money back"), "refund", by="bob")
    made = make(world)
    assert [(row["label"], row["people"]) for row in made.rows()] == [("refund", 2)]


def test_without_consent_a_text_is_not_trained_on(make):
    world = World()
    refused = world.judge(world.ask("money back"), "refund", consent=False)
    made = make(world)
    assert (made.rows(), made.left_out()) == ([], {refused: "no_consent"})
    assert b"money" not in b"".join(made.bytes().values())


def test_consent_that_is_not_given_again_does_not_count_for_a_later_verdict(make):
    world = World()
    this = world.ask("money back")
    first = world.judge(this, "praise", minute=1)
    second = world.judge(this, "refund", minute=2, consent=False)
    made = make(world)
    assert (made.rows(), made.left_out()) == ([], {first: "superseded", second: "no_consent"})


def test_a_person_without_consent_contradicts_nobody(make):
    world = World()
    this = world.ask("money back")
    world.judge(this, "praise", by="ann", consent=False)
    world.judge(this, "refund", by="bob")
    assert make(world).labels() == ["refund"]


def test_what_is_withdrawn_is_left_out_and_what_was_said_before_stands_again(make):
    world = World()
    this = world.ask("money back")
    world.judge(this, "f-3", verdict="withdrawn", partition=1)  # it lies before what it takes back
    world.judge(this, "refund", minute=1)
    world.judge(this, "praise", minute=2)
    made = make(world)
    assert (made.labels(), made.left_out()) == (["refund"], {"f-3": "withdrawn"})
    assert made.manifest.counts == {"feedback": 3, "taking_back": 1, "used": 1, "withdrawn": 1}


def test_the_same_id_once_more_is_a_duplicate(make):
    world = World()
    this = world.ask("money back")
    world.judge(this, "refund", name="same", by="ann")
    world.judge(this, "praise", name="same", by="bob")
    made = make(world)
    assert (made.labels(), made.manifest.counts["duplicate"]) == (["refund"], 1)


def test_of_a_result_that_was_delivered_twice_the_first_counts(make):
    world = World()
    request = world.add("requests", {"text": "money back"})
    this = world.answer(request, {"intent": classified("refund", 0.9)})
    assert world.answer(request, {"intent": classified("praise", 0.9)}) == this
    world.judge(this)
    assert make(world).labels() == ["refund"]


def test_up_down_and_reward_name_no_label(make):
    world = World()
    names = [
        world.judge(world.ask("one"), verdict="up"),
        world.judge(world.ask("two"), verdict="down"),
        world.judge(world.ask("three"), 0.5, verdict="reward"),
    ]
    made = make(world)
    assert (made.rows(), made.left_out()) == ([], dict.fromkeys(names, "no_label"))


def unknown_prediction(world: World) -> str:
    return world.judge("0" * 32, "refund")


def another_agent(world: World) -> str:
    return world.judge(world.ask("a"), "refund", agent="analysis")


def task_not_answered(world: World) -> str:
    return world.judge(world.ask("a"), "refund", task="mood")


def task_with_a_path(world: World) -> str:
    return world.judge(world.ask("a", {"../../etc/x": classified("a")}), "refund", task="../../etc/x")


def request_elsewhere(world: World) -> str:
    source = {"topic": "elsewhere", "partition": 0, "offset": 0, "timestamp": 1}
    return world.judge(world.ask("a", source=source), "refund")


def request_behind_the_range(world: World) -> str:
    source = {"topic": world.topic("requests"), "partition": 0, "offset": 99, "timestamp": 1}
    return world.judge(world.ask("a", source=source), "refund")


def request_of_a_topic_made_anew(world: World) -> str:
    source = {"topic": world.topic("requests"), "partition": 0, "offset": 0, "timestamp": 1}
    return world.judge(world.ask("a", source=source), "refund")


def request_that_is_none(world: World) -> str:
    return world.judge(world.answer(world.add("requests", b"{")), "refund")


def spans_outside(world: World) -> str:
    this = world.ask("rome", {"places": tagged("rome", city="rome")})
    return world.judge(this, [{"label": "city", "start": 0, "end": 5}], task="places")


def wrong_form(world: World) -> str:
    return world.judge(world.ask("a"), ["refund"])


def not_feedback(world: World) -> None:
    world.add("feedback", {"id": "x"})


def result_of_another_form(world: World) -> str:
    return world.judge(world.ask("a", {"intent": {"kind": "classification"}}))


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        (unknown_prediction, "prediction_not_found"),
        (another_agent, "other_agent"),
        (task_not_answered, "unknown_task"),
        (task_with_a_path, "unknown_task"),
        (request_elsewhere, "request_not_found"),
        (request_behind_the_range, "request_not_found"),
        (request_of_a_topic_made_anew, "request_not_found"),
        (request_that_is_none, "request_not_found"),
        (spans_outside, "spans_outside"),
        (wrong_form, "wrong_form"),
        (not_feedback, "invalid"),
        (result_of_another_form, "wrong_form"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_listed_and_the_rest_is_not_harmed(make, mistake, reason):
    world = World()
    name = mistake(world)
    world.judge(world.ask("fine"), "refund", by="bob")
    made = make(world)
    assert [row["text"] for row in made.rows()] == ["fine"]
    assert made.left_out() == {name: reason}
    assert f"| `{reason}` | 1 |" in (made.folder / "report.md").read_text()
    assert made.manifest.counts["feedback"] == 2


def test_unreadable_records_are_listed(make, tmp_path):
    world = World()
    plan = world.plan()
    join = Join(tmp_path / "x.sqlite", plan)
    join.unreadable("feedback", 1, 7)
    join.feedback_done()
    join.results_done()
    list(join.settle())
    folder = tmp_path / "set"
    folder.mkdir()
    write_files(join.settled, plan, folder)
    (line,) = Made(folder, None).lines("left_out.jsonl")
    assert (line["reason"], line["partition"], line["offset"], line["feedback"]) == ("unreadable", 1, 7, None)


def test_with_labels_of_a_model_closed_tasks_take_no_others(make):
    world = World()
    outputs = {"intent": classified("refund"), "product": classified("card"), "mood": classified("good")}
    names = [world.judge(world.ask(f"{task}", outputs), "new", task=task) for task in outputs]
    labels = {
        "intent": TaskLabels(labels=["refund"]),
        "product": TaskLabels(labels=["card"], open=True),
    }
    made = make(world, labels=labels)
    assert made.labels("product") == ["new"]
    assert made.left_out() == {names[0]: "unknown_label", names[2]: "unknown_task"}


def test_only_the_tasks_that_were_asked_for(make):
    world = World()
    this = world.ask(TEXT, OUTPUTS)
    other = world.judge(this, [], task="topics")
    world.judge(this, "refund")
    made = make(world, tasks=["intent"])
    assert (made.labels(), made.rows("topics"), made.left_out()) == (["refund"], [], {other: "task_not_asked"})
