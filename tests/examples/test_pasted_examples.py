"""The examples with a README do what it says, pasted as it stands there."""

import json
import time
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from murmura.runtime.model.folders.folder import read_manifest
from murmura.schemas.ids import prediction_id

DEMO = Path(__file__).resolve().parents[2] / "scenarios/support/model"


def with_tiny_demo_model(root: Path) -> None:
    """The demo's tasks but for the replies with random weights, in its place: answers mean nothing, everything else is the same."""
    tasks = [task for task in read_manifest(DEMO).tasks if task.generation is None]
    write_tiny_model(root / "scenarios/support/model", tasks, name="support-desk")


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_a_release_takes_over_while_customers_write_and_is_taken_back(example):
    desk = example("e05_releases")
    with_tiny_demo_model(desk.root)
    with desk.first_terminal():
        (event,) = json_lines(desk.paste(desk.blocks[1]).splitlines()[-1])
        counted = [line.split() for line in desk.paste(desk.blocks[2]).splitlines()]
        went_back, *history = desk.paste(desk.blocks[3]).splitlines()
    assert (event["event"], event["version"], event["previous"]) == ("model.swapped", 2, 1)
    assert [version for *_, version in counted] == ["1", "2"]
    assert sum(int(count) for count, *_ in counted) == 60
    assert went_back == "support-desk 1 is current (generation 3, before: 2)"
    assert [line.split("\t")[1] for line in history] == ["1", "2", "1 (back to generation 1)"]


@pytest.mark.slow
def test_people_judge_and_what_they_say_becomes_a_data_set(example):
    desk = example("e06_feedback")
    with_tiny_demo_model(desk.root)
    tickets = json_lines((desk.folder / "tickets.jsonl").read_text())
    topic = next(line.split()[2] for line in desk.blocks[1].splitlines() if line.startswith("murmura publish"))
    for ticket in tickets:  # an id follows from the topic's name, which is another one here
        before, now = (
            prediction_id("classification", name, ticket["id"]) for name in ("e06.classification.requests", topic)
        )
        desk.replace(before, now)
    with desk.first_terminal():
        (asked,) = json_lines(desk.paste(desk.blocks[1]))
        assert f"murmura feedback {asked['prediction_id']} " in desk.blocks[2]
        desk.paste(desk.blocks[2])
        desk.paste(desk.blocks[3])
        said = until(lambda: desk.paste(desk.blocks[4]), lambda said: "new_labels_total" in said and " 0.7" in said)
        desk.paste(desk.blocks[5])
    assert "dead letter invalid of feedback: task sentiment is closed and has no such label" in said
    assert 'murmura_feedback_new_labels_total{task="queue"} 3.0' in said
    assert 'murmura_live_accuracy{task="queue",version="0"} 0.7' in said
    (data,) = (desk.root / "runs").iterdir()
    rows = [row for path in data.glob("queue.*.jsonl") for row in json_lines(path.read_text())]
    insured = {row["text"] for row in rows if row["label"] == "insurance"}
    assert insured == {ticket["text"] for ticket in tickets if ticket["id"] in {"t6", "t8", "t12"}}
    assert "unknown_label" in [left["reason"] for left in json_lines((data / "left_out.jsonl").read_text())]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_corrections_teach_a_label_and_the_new_version_serves(example):
    shop = example("e07_retraining")
    with shop.first_terminal():
        shop.paste(shop.blocks[1])
        did = shop.paste(shop.blocks[2])
        history, event, answer = shop.paste(shop.blocks[3]).splitlines()[-3:]
    assert "ingest 64 records of feedback" in did
    assert "new to topic: rental" in did
    assert "# Gate: passed" in did
    assert history.startswith("2\t2\t")
    assert (json.loads(event)["event"], json.loads(event)["version"]) == ("model.swapped", 2)
    assert "topic: rental" in answer


def until(ask, good, patience_s: float = 60) -> str:
    """The first good answer; what was counted last may come a moment after the dead letter."""
    end = time.monotonic() + patience_s
    while not good(said := ask()) and time.monotonic() < end:
        time.sleep(0.2)
    return said
