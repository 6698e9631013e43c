"""`murmura feedback`: one verdict from the shell, many from a file."""

import json

import pytest
from cli_in_process import refused_here, run_here

from murmura.agents.feedback.name_check import check_names
from murmura.runtime.errors import SetupError
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.schemas.feedback import Feedback

PREDICTION = "7525d86cb8d3ad17cc4654843b6d4a50"
ABOUT = (PREDICTION, "--agent", "classification", "--task", "intent", "--by", "ann")


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker({"murmura.feedback": 2}) as embedded:
        yield embedded.bootstrap


def on_topic(broker: str, count: int) -> list[Feedback]:
    seen = run_here("tail", "murmura.feedback", "--from-beginning", "--json", "--count", count, "--bootstrap", broker)
    return [Feedback.model_validate_json(line) for line in seen.stdout.splitlines()]


def test_one_verdict_of_each_form_is_sent_and_its_id_printed(broker):
    forms = {
        ("--label", "refund"): ("correction", "refund"),
        ("--labels", "cards,travel"): ("correction", ["cards", "travel"]),
        ("--labels", ""): ("correction", []),
        ("--spans", "0:4:city,10:14:date"): ("correction", [("city", 0, 4), ("date", 10, 14)]),
        ("--verdict", "confirmed"): ("confirmed", None),
        ("--reward", "0.5"): ("reward", 0.5),
        ("--withdraw", "f-1"): ("withdrawn", "f-1"),
    }
    expected = {}
    for options, form in forms.items():
        done = run_here("feedback", *ABOUT, *options, "--bootstrap", broker, "--consent", "--model", "desk/3")
        assert done.returncode == 0, done.stderr
        expected[done.stdout.strip()] = form
    found = {one.id: one for one in on_topic(broker, len(forms))}
    assert set(found) == set(expected)
    for name, (verdict, value) in expected.items():
        one = found[name]
        spans = [(span.label, span.start, span.end) for span in one.value] if "city" in str(one.value) else one.value
        assert (one.verdict, spans, one.by, one.consent, one.model.version) == (verdict, value, "ann", True, 3)


def test_lines_of_a_file_take_what_they_lack_from_the_options(broker, tmp_path):
    lines = [
        {"prediction_id": PREDICTION, "verdict": "confirmed", "task": "intent"},
        {
            "prediction_id": PREDICTION,
            "verdict": "correction",
            "value": "praise",
            "task": "mood",
            "by": "bob",
            "id": "x",
        },
    ]
    file = tmp_path / "feedback.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    send = ("feedback", "--file", file, "--agent", "analysis", "--by", "ann", "--bootstrap", broker)
    assert run_here(*send).stderr == "published 2 to murmura.feedback\n"
    assert run_here(*send).returncode == 0
    seen = [one for one in on_topic(broker, 11) if one.agent == "analysis"]
    assert sorted((one.task, one.by) for one in seen) == [("intent", "ann")] * 2 + [("mood", "bob")] * 2
    assert len({one.id for one in seen}) == 2, "sent once more it is the same feedback"


def test_equal_lines_of_a_file_are_one_verdict_unless_they_have_times_of_their_own(broker, tmp_path):
    about = {"prediction_id": PREDICTION, "agent": "repeating", "task": "intent", "by": "ann", "verdict": "correction"}
    said = [about | {"value": value} for value in "aba"]
    timed = [line | {"at": f"2026-01-05T10:0{minute}:00Z"} for minute, line in enumerate(said)]
    file = tmp_path / "feedback.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in [*said, *timed]))
    assert run_here("feedback", "--file", file, "--bootstrap", broker).returncode == 0
    names = {}
    for one in on_topic(broker, 17):
        if one.agent == "repeating":
            names.setdefault(one.value, []).append(one.id)
    assert {value: len(set(ids)) for value, ids in names.items()} == {"a": 3, "b": 2}
    assert {value: len(ids) for value, ids in names.items()} == {"a": 4, "b": 2}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give either a PREDICTION_ID or --file"),
        ((*ABOUT, "--file", "x.jsonl"), "give either"),
        (ABOUT, "verdict is missing: give --verdict"),
        ((PREDICTION, "--label", "x", "--task", "t", "--agent", "a"), "by is missing: give --by"),
        ((*ABOUT, "--label", "x", "--reward", "1"), "exclude each other"),
        ((*ABOUT, "--label", "x", "--verdict", "confirmed"), "verdict confirmed has no value"),
        (("12", *ABOUT[1:], "--label", "x"), "prediction_id: "),
        ((*ABOUT, "--label", " "), "a label is nothing but white space"),
        ((*ABOUT, "--spans", "a:b:c"), "expected START:END:LABEL"),
        ((*ABOUT, "--label", "x", "--model", "desk"), "expected NAME/VERSION"),
        (("--file", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        ((*ABOUT, "--label", "x", "--bootstrap", "127.0.0.1:1"), "no Kafka broker at"),
    ],
)
def test_what_cannot_be_sent_is_one_line(options, said):
    assert said in refused_here("feedback", *options)


def test_a_line_that_does_not_fit_is_named(broker, tmp_path):
    file = tmp_path / "feedback.jsonl"
    good = {"prediction_id": PREDICTION, "verdict": "up", "task": "intent", "agent": "a", "by": "ann"}
    file.write_text(json.dumps(good) + "\n" + json.dumps(good | {"value": 3}) + "\n")
    said = refused_here("feedback", "--file", file, "--bootstrap", broker)
    assert f"{file}, line 2: feedback: verdict up has no value, found a number" in said


def test_without_the_topic_it_says_what_to_do():
    with EmbeddedBroker({"other": 1}) as embedded:
        assert "murmura topics --create" in refused_here(
            "feedback", *ABOUT, "--label", "x", "--bootstrap", embedded.bootstrap
        )


def judged(**changed: object) -> Feedback:
    fields = {"id": "f-1", "prediction_id": "0" * 32, "agent": "desk", "task": "sentiment", "verdict": "correction"}
    return Feedback.model_validate(
        {**fields, "value": "neutral", "by": "ann", "at": "2026-01-01T00:00:00Z", "consent": True, **changed}
    )


def test_a_task_and_a_label_that_the_model_lacks_are_refused_with_the_nearest_ones(tiny_model):
    assert check_names(judged(), tiny_model) is None
    assert check_names(judged(agent="dialogue", task="reply", value="We look for it."), tiny_model) is None
    with pytest.raises(SetupError, match=r"--task: model \w+ has no task 'sentimnt'; .* did you mean sentiment\?"):
        check_names(judged(task="sentimnt"), tiny_model)
    with pytest.raises(SetupError, match=r"task sentiment has no label 'neutrl'; did you mean neutral\? \(it has"):
        check_names(judged(value="neutrl"), tiny_model)


def test_what_cannot_be_checked_is_said(tiny_model):
    assert "no model.folder is set" in check_names(judged(value="neutrl"), None)
    assert "not other" in check_names(judged(value="neutrl", model={"name": "other", "version": 1}), tiny_model)
