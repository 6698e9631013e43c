"""Results that are none of ours, and records that cannot be unpacked: one line with a reason, and the rest goes on."""

import json

import pytest
from ingest_sets import Made, feed, make_in
from ingest_world import World, WorldRecord

from murmura.training.ingest.files import write_files
from murmura.training.ingest.join import Join
from murmura.training.ingest.manifest import TaskLabels


@pytest.fixture
def make(tmp_path):
    return make_in(tmp_path)


def answered(world: World, output: object) -> str:
    return world.judge(world.ask("a", {"intent": output}))


def spans(**change: object) -> dict:
    return {"kind": "tagging", "spans": [{"start": 0, "end": 1, "label": "city", **change}]}


@pytest.mark.parametrize(
    "output",
    [
        {"kind": "multi_label", "labels": [{"label": {}}]},
        {"kind": "multi_label", "labels": [{"label": 3}, {"label": 4}]},
        {"kind": "multi_label", "labels": ["refund"]},
        {"kind": "multi_label", "labels": 3},
        {"kind": "classification", "abstained": False, "label": None},
        {"kind": "classification", "abstained": False, "label": 3},
        {"kind": "classification", "abstained": True, "reason": "out_of_scope", "alternatives": []},
        {"kind": "classification", "abstained": True, "reason": "out_of_scope", "alternatives": [{"label": None}]},
        {"kind": ["classification"]},
        spans(start=True),
        spans(end=0.5),
        spans(label=3),
        spans(label=None),
        3,
        "refund",
    ],
)
@pytest.mark.parametrize("labels", [None, {"intent": TaskLabels(labels=["refund"])}])
def test_what_is_confirmed_of_a_malformed_answer_is_left_out(make, output, labels):
    world = World()
    name = answered(world, output)
    world.judge(world.ask("fine"), "refund", by="bob")
    made = make(world, labels=labels)
    assert (made.labels(), made.left_out()) == (["refund"], {name: "wrong_form"})


def test_a_blank_label_is_no_answer_to_be_confirmed(make):
    world = World()
    name = answered(world, {"kind": "classification", "abstained": False, "label": " "})
    assert make(world).left_out() == {name: "blank_label"}


@pytest.mark.parametrize("timestamp", [1 << 63, 1 << 64, -(1 << 63) - 1, 10**400])
def test_a_result_with_a_time_beyond_all_is_no_result(make, timestamp):
    world = World()
    source = {"topic": world.topic("requests"), "partition": 0, "offset": 0, "timestamp": timestamp}
    name = world.judge(world.ask("a", source=source), "refund")
    assert make(world).left_out() == {name: "prediction_not_found"}


def test_outputs_that_are_not_utf_8_are_left_out(make):
    world = World()
    name = world.judge(world.ask("a"))
    (log, _) = world.logs[world.topic("results")]
    log[0] = log[0]._replace(value=log[0].value.replace(b'"other"', b'"\xff\xfe"'))
    assert make(world).left_out() == {name: "wrong_form"}


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_feedback_of_a_time_that_utc_cannot_express_is_invalid(make, at):
    world = World()
    this = world.ask("a")
    world.judge(this, "refund", by="bob")
    (log, _) = world.logs[world.topic("feedback")]
    world.add("feedback", json.loads(log[0].value) | {"id": "x", "at": at})
    made = make(world)
    assert (made.labels(), made.left_out()) == (["refund"], {None: "invalid"})


def test_labels_of_corrections_are_stripped_and_blank_ones_listed(make):
    world = World()
    world.judge(world.ask("one"), "refund ")
    name = world.judge(world.ask("two"), " ")
    made = make(world, labels={"intent": TaskLabels(labels=["refund"], open=True)})
    assert (made.labels(), made.left_out()) == (["refund"], {name: "blank_label"})


class WithUnreadable(Join):
    """A join that is told that one record of each topic cannot be unpacked, and of one more request that nobody wants."""

    def take_feedback(self, number: int, records: list[WorldRecord]) -> None:
        self._but("feedback", number, records, b"lost-feedback", super().take_feedback)

    def take_results(self, number: int, records: list[WorldRecord]) -> None:
        self._but("results", number, records, b"lost-result", super().take_results)

    def take_requests(self, number: int, records: list[WorldRecord]) -> None:
        self._but("requests", number, records, b"lost-request", super().take_requests)

    def _but(self, role, number, records, marked, take) -> None:
        for record in records:
            if record.key == marked:
                self.unreadable(role, number, record.offset)
            else:
                take(number, [record])


def test_unreadable_results_and_wanted_requests_are_counted_and_listed_too(tmp_path):
    world = World()
    names = [world.judge(world.ask("a", key=key), "refund") for key in (b"lost-result", b"lost-request", b"good")]
    world.add("requests", {"text": "nobody judged it"}, key=b"lost-request")
    world.add("feedback", b"x", key=b"lost-feedback", partition=1)
    for record in list(world.logs[world.topic("results")][0]):
        if record.key == b"lost-request":  # its result can be read
            world.logs[world.topic("results")][0][record.offset] = record._replace(key=None)
    for record in list(world.logs[world.topic("requests")][0]):
        if record.key == b"lost-result":
            world.logs[world.topic("requests")][0][record.offset] = record._replace(key=None)
    plan = world.plan()
    join = WithUnreadable(tmp_path / "x.sqlite", plan)
    feed(join, world, None)
    list(join.settle())
    folder = tmp_path / "set"
    folder.mkdir()
    counts = write_files(join.settled, plan, folder).counts
    join.close()
    assert counts == {
        "feedback": 4,
        "taking_back": 0,
        "used": 1,
        "prediction_not_found": 1,
        "request_not_found": 1,
        "unreadable": 1,
        "unreadable_request": 1,
        "unreadable_result": 1,
    }
    lines = Made(folder, None).lines("left_out.jsonl")
    assert [(line["reason"], line["topic"], line["partition"], line["offset"], line["feedback"]) for line in lines] == [
        ("prediction_not_found", "world.feedback", 0, 0, names[0]),
        ("request_not_found", "world.feedback", 0, 1, names[1]),
        ("unreadable", "world.feedback", 1, 0, None),
        ("unreadable_result", "world.results", 0, 0, None),
        ("unreadable_request", "world.requests", 0, 1, None),
    ]
    report = (folder / "report.md").read_text()
    assert all(f"| `{reason}` | 1 |" in report for reason in ("unreadable", "unreadable_result", "unreadable_request"))
