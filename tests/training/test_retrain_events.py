"""What the topics hear of a run, on the embedded broker: everything, in order, also when the broker or the run goes away."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from tiny_loop import write_corrections, write_job
from tiny_training import write_jsonl

from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.schemas.review import Review
from murmura.training.retrain import announce
from murmura.training.retrain.run import Retraining, retrain

FIRST = ["run.started", "run.progress", "run.progress"]
ALL = [*FIRST, "run.evaluated", "gate.passed"]
TOPICS = {"murmura.training": 1, "murmura.reviews": 1, "murmura.models": 1}


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(TOPICS) as broker:
        yield broker


@pytest.fixture
def job(desk_base: Path, tmp_path: Path, broker: EmbeddedBroker) -> Path:
    write_corrections(tmp_path / "corrections")
    kafka = {"bootstrap_servers": broker.bootstrap, "fetch_max_wait_ms": 5}
    return write_job(tmp_path, desk_base, kafka=kafka, release={"release": False})


def read(broker: EmbeddedBroker, topic: str, count: int) -> list[tuple[str, dict]]:
    """The ids and values of a topic's records, once `count` are there."""

    async def main() -> list[tuple[str, dict]]:
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=5
        )
        await consumer.start()
        found: list[tuple[str, dict]] = []
        try:
            until = time.monotonic() + 10
            while time.monotonic() < until and (len(found) < count or time.monotonic() > until - 9.5):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [(dict(r.headers)["ce_id"].decode(), json.loads(r.value)) for r in records]
        finally:
            await consumer.stop()
        return found

    return asyncio.run(main())


def events(broker: EmbeddedBroker, count: int) -> list[str]:
    return [value["event"] for _, value in read(broker, "murmura.training", count)]


class Gone(BaseException):
    """The process is killed here."""


def test_when_the_broker_goes_away_the_rest_is_published_by_the_next_run(job, tmp_path, broker, monkeypatch):
    monkeypatch.setattr(announce, "_LAST_WORDS_S", 1.0)
    real = Retraining._export

    def down(self, folder: Path):
        broker.go_down()
        return real(self, folder)

    monkeypatch.setattr(Retraining, "_export", down)
    said: list[str] = []
    assert retrain(job, tmp_path / "work", quiet=True, say=said.append).version == 1
    assert said[-1].startswith("warning: 2 records about the run could not be published; they are kept in ")
    broker.come_up()
    again = retrain(job, tmp_path / "work", quiet=True)
    assert (again.version, again.before) == (1, True)
    assert events(broker, len(ALL)) == ALL


def test_killed_behind_the_gate_nothing_is_lost_and_repeats_have_the_same_id(job, tmp_path, broker, monkeypatch):
    real = Retraining._gate

    def killed(self, folder: Path):
        real(self, folder)
        raise Gone

    monkeypatch.setattr(Retraining, "_gate", killed)
    with pytest.raises(Gone):
        retrain(job, tmp_path / "work", quiet=True)
    (tmp_path / "work" / "events.sent").write_text("2\n")  # as if the last acknowledgements had not been noted
    monkeypatch.setattr(Retraining, "_gate", real)
    retrain(job, tmp_path / "work", quiet=True)
    run = json.loads((tmp_path / "work" / "job.json").read_text())["run"]
    found = read(broker, "murmura.training", 9)
    once = list({name: value["event"] for name, value in found}.items())
    steps = [value["step"] for _, value in found if value["event"] == "run.progress"]
    assert [name for name, _ in once] == [
        f"{run}/run.started/1",
        *[f"{run}/run.progress/{step}" for step in sorted(set(steps))],
        f"{run}/run.evaluated",
        f"{run}/gate.passed",
        f"{run}/run.started/2",
    ]
    assert len(found) == 9  # three were published once more


def test_a_finished_run_says_nothing_more(job, tmp_path, broker):
    retrain(job, tmp_path / "work", quiet=True)
    broker.go_down()  # nobody is asked, either
    assert retrain(job, tmp_path / "work", quiet=True).before
    broker.come_up()
    assert events(broker, len(ALL)) == ALL


def test_reviews_name_the_version_that_was_pushed(job, tmp_path, broker):
    """A slip among the held-out rows, on which the model is sure of the right label."""
    slips = [{"text": f"i lost my card in rome {n}", "label": "transfer"} for n in range(3)]
    path = tmp_path / "corrections" / "intent.heldout.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, [*lines, *slips])
    retrain(job, tmp_path / "work", quiet=True)
    reviews = [Review.model_validate(value) for _, value in read(broker, "murmura.reviews", 1)]
    assert {(each.why.value, each.model.version) for each in reviews} == {("error", 1)}
    assert {each.predicted for each in reviews} == {"lost"}
