"""Starting, raising, promoting and stopping an experiment, as typed on the command line: a folder store, and both brokers."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from cli_in_process import refused_here, run_here
from kafka_topics import create_topics
from tiny_model import TASKS, write_tiny_model

from murmura.runtime.cli.doctor import _find_trials
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.kafka.groupless_reader import open_reader
from murmura.runtime.kafka.sending.producer import producer_factory
from murmura.runtime.release.states import publish_state, read_states
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import KafkaSettings, ProducerSettings, Settings
from murmura.schemas.experiment import Rules
from murmura.schemas.experiment_state import ExperimentState
from murmura.schemas.release import ReleaseState, released

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with desk 1, 2 and 3, and 4, which lacks a task."""
    folder = tmp_path_factory.mktemp("models")
    made = write_tiny_model(folder / "tiny", TASKS[:2], name="desk")
    fewer = write_tiny_model(folder / "fewer", TASKS[:1], name="desk")
    for model in (made, made, made, fewer):
        ModelStore(folder / "store").push(model)
    return folder / "store"


@pytest.fixture
def store(pushed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pushed, tmp_path / "store"))


@pytest.fixture
def broker() -> Iterator[str]:
    with EmbeddedBroker({"murmura.models": 1, "murmura.events": 1, "murmura.experiments": 1}) as embedded:
        yield embedded.bootstrap


class Desk:
    """The commands about desk on one broker, and what they leave there."""

    def __init__(self, bootstrap: str, store: Path, folder: Path, prefix: str = "murmura") -> None:
        self.kafka, self.prefix = KafkaSettings(bootstrap_servers=bootstrap), prefix
        self.store = store
        self.config = folder / "murmura.yaml"
        self.config.write_text(f"{{prefix: {prefix}, model: {{store: {store}, name: desk}}}}\n")
        self.at = ("--config", self.config, "--bootstrap", bootstrap)

    def run(self, command: str, *arguments: object) -> str:
        done = run_here("models", command, "desk", *arguments, *self.at)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, command: str, *arguments: object) -> str:
        return refused_here("models", command, "desk", *arguments, *self.at)

    def release(self, version: int) -> None:
        digest = ModelStore(self.store).digest("desk", version)
        state = released(self.state, "desk", version, digest, by="ann", why="", at=NOON)
        asyncio.run(publish_state(self.kafka, f"{self.prefix}.models", state))

    @property
    def state(self) -> ReleaseState | None:
        return asyncio.run(read_states(self.kafka, f"{self.prefix}.models")).get("desk")

    def events(self) -> list[tuple[str, int, int, str]]:
        async def read() -> list[dict]:
            async with open_reader(self.kafka, [f"{self.prefix}.events"], from_beginning=True) as consumer:
                ends = await consumer.end_offsets(consumer.assignment())
                records = [await consumer.getone() for _ in range(sum(ends.values()))]
            return [json.loads(record.value) for record in records]

        return [(e["event"], e["version"], e["previous"], e["message"]) for e in asyncio.run(read())]


@pytest.fixture
def desk(broker: str, store: Path, tmp_path: Path) -> Desk:
    desk = Desk(broker, store, tmp_path)
    desk.release(2)
    return desk


def go_through(desk: Desk) -> None:
    at = ("--by", "bo", "--why", "new product")
    said = desk.run("canary", 3, "--unit", "metadata.customer", "--no-power", *at)
    assert said.endswith(": desk 3 answers 5 % of the values of metadata.customer beside 2 (generation 2)\n")
    began = desk.state.candidate.experiment
    assert (began.share, began.unit, began.rules) == (0.05, "metadata.customer", Rules(max_units=200_000))
    assert began.id.startswith("desk-3-20")
    assert "answers 50 % of" in desk.run("ab", 3, *at)
    assert "answers 95 % of" in desk.run("promote", *at)
    assert desk.state.candidate.experiment.promoted is not None
    assert (
        desk.run("promote", "--now", *at) == f"experiment {began.id} is completed: desk 3 answers all (generation 5)\n"
    )
    assert (desk.state.current.version, desk.state.candidate) == (3, None)
    lines = [line.split("\t") for line in desk.run("history").splitlines()]
    assert [line[1] for line in lines] == [
        "2",
        "2 (candidate 3 started, 5 %)",
        "2 (candidate 3 raised, 50 %)",
        "2 (candidate 3 promoted, 95 %)",
        "3 (candidate 3 completed)",
    ]
    kinds = ("started", "raised", "promoted", "completed")
    events = desk.events()
    assert [event[:3] for event in events] == [(f"experiment.{kind}", 3, 2) for kind in kinds]
    assert all(event[3].startswith(f"experiment {began.id}") for event in events)
    assert all(event[3].endswith(", by bo: new product") for event in events)


def test_an_experiment_from_its_start_to_its_end(desk):
    go_through(desk)


@pytest.mark.kafka
def test_an_experiment_on_a_real_kafka(store, kafka, unique, tmp_path):
    desk = Desk(kafka, store, tmp_path, unique("p"))
    asyncio.run(create_topics(kafka, [f"{desk.prefix}.models", f"{desk.prefix}.events"], 1, {}))
    desk.release(2)
    go_through(desk)


def test_a_step_is_refused_where_the_clock_is_behind_the_results(store, kafka, unique, tmp_path):
    prefix = unique("clock")
    results = f"{prefix}.classification.results"
    asyncio.run(create_topics(kafka, [f"{prefix}.models", f"{prefix}.events"], 1, {}))
    asyncio.run(create_topics(kafka, [results], 2, {}))
    desk = Desk(kafka, store, tmp_path, prefix)
    desk.release(2)
    ahead = 1800.0
    # One with a time of its own says nothing of the clock, and so do the few of a quiet partition.
    send_results(desk.kafka, results, 0, [ahead, ahead, -ahead, ahead, ahead, ahead])
    send_results(desk.kafka, results, 1, [2 * ahead - 60, ahead, ahead, ahead])
    desk.run("canary", 3, "--no-power")
    send_results(desk.kafka, results, 1, [ahead])
    for command in (("canary", 3, "--share", "20%"), ("ab", 3), ("promote",)):
        said = desk.refused(*command)
        assert f"is behind the latest 5 results in {results}/1 (" in said
        assert "--no-clock-check goes on" in said
    assert (desk.state.generation, desk.state.candidate.experiment.share_now) == (2, 0.05)
    desk.run("canary", 3, "--share", "20%", "--no-clock-check")
    desk.run("promote", "--no-clock-check")
    desk.run("stop")


def send_results(kafka: KafkaSettings, topic: str, partition: int, ahead_s: list[float]) -> None:
    """Send each in a transaction of its own, whose marker takes an offset, too."""

    async def send() -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"{topic}/{partition}", linger_ms=0
        )
        await producer.start()
        for each in ahead_s:
            at_ms = int(1000 * (datetime.now(UTC).timestamp() + each))
            async with producer.transaction():
                await producer.send_and_wait(topic, b"{}", partition=partition, timestamp_ms=at_ms)
        await producer.stop()

    asyncio.run(send())


def test_a_shadow_runs_and_is_stopped_and_the_current_version_stays(desk):
    assert desk.run("shadow", 3) == "shadow: desk 3 is compared with 2 on 10 % of the requests (generation 2)\n"
    assert "has no experiment, only a shadow" in desk.refused("promote")
    assert desk.run("stop") == "shadow is stopped: desk 2 answers all (generation 3)\n"
    assert "desk has no candidate: nothing to stop" in desk.refused("stop")
    assert [event[0] for event in desk.events()] == ["experiment.started", "experiment.stopped"]


def test_what_cannot_run_beside_the_current_version_is_refused_and_changes_nothing(desk, store):
    assert "desk 2 is current: a candidate is another version" in desk.refused("canary", 2)
    assert "has no version 9 of desk: it has 1, 2, 3, 4" in desk.refused("canary", 9)
    lacking = f"desk 4 lacks task {TASKS[1].name} ({TASKS[1].kind}) of desk 2, which is current"
    assert lacking in desk.refused("shadow", 4)
    graph = next((store / "desk/3").glob("*.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    assert f"desk 3 in {store}: {graph.name} is not the file that the manifest names (SHA-256)" in desk.refused("ab", 3)
    assert desk.state.generation == 1


def test_one_experiment_at_a_time_whose_share_only_grows(desk):
    desk.run("canary", 3, "--share", "20%", "--no-power")
    for command in ("canary", "ab", "shadow"):
        assert "with version 3, one at a time: `murmura models stop desk` ends it" in desk.refused(command, 1)
    smaller = "a share only grows: expected more than 0.2 and less than 1, found 0.05"
    assert f"{smaller}; `murmura models stop desk` ends the experiment" in desk.refused("canary", 3)
    assert "its unit and rules stay" in desk.refused("canary", 3, "--share", "30%", "--unit", "request")


def test_a_release_or_a_rollback_ends_what_runs_with_an_event(desk):
    desk.release(1)
    desk.run("canary", 3, "--no-power")
    assert desk.run("rollback", "--by", "ann") == "desk 2 is current (generation 4, before: 1)\n"
    assert desk.state.candidate is None
    kind, version, previous, message = desk.events()[-1]
    assert (kind, version, previous) == ("experiment.stopped", 3, 2)
    assert message.endswith("ended, as desk 2 was released, by ann")


def test_without_a_release_there_is_nothing_to_compare_with(broker, store, tmp_path):
    desk = Desk(broker, store, tmp_path)
    for command in (("canary", 3), ("shadow", 3), ("promote",), ("stop",)):
        assert "desk has no release to compare with; `murmura models release desk VERSION`" in desk.refused(*command)


def test_the_expectation_is_printed_before_the_start(desk, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("{goals: [{measure: withheld}], tuning: 100, min_units: 50, min_hours: 0.5}\n")
    said = desk.run("ab", 3, "--rules", rules, "--rate", 0.1)
    lines = said.splitlines()
    assert lines[0].startswith(
        "of 300 simulated experiments, candidate 50 %, withheld of the current version 0.1, up to 400"
    )
    rows = [line.split("\t") for line in lines[1:6]]
    assert [row[0] for row in rows] == ["-0.05", "-0.02", "+0.00", "+0.02", "+0.05"]
    assert all(0.0 <= float(row[1].rstrip("%")) <= 100.0 for row in rows)
    assert lines[6].startswith("how many hours these are is not known: desk answered nothing in the latest hour")
    assert lines[7].startswith("no promotion before 50 units on each side and 0.5 hours")
    assert desk.state.candidate.experiment.rules.min_units == 50


def test_status_shows_what_runs_and_the_sums_once_there_are_some(broker, desk, tmp_path):
    def experiment(*arguments: object) -> str:
        done = run_here("experiment", *arguments, *desk.at, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert experiment("status") == ""
    assert experiment("status", "desk") == "desk 2 answers all: no experiment runs\n"
    desk.run("canary", 3, "--no-power")
    began = desk.state.candidate.experiment
    row = f"desk\t2\t3\t{began.id}\t5 %\tkey\t{began.started:%Y-%m-%d %H:%M:%SZ}\n"
    assert experiment("status") == row
    assert f"experiment\t{began.id}\nshare\t5 %\n" in experiment("status", "desk")
    assert "desk has no experiment in murmura.experiments" in refused_here("experiment", "report", "desk", *desk.at)
    minute = int(began.started.timestamp()) // 60 + 90
    kept = ExperimentState(
        experiment=began, model="desk", current=2, candidate=3, minute=minute, units={"control": 95, "candidate": 5}
    )
    asyncio.run(
        send_all(
            desk.kafka,
            "murmura.experiments",
            [(f"{began.id}#state", kept.model_dump_json()), (f"{began.id}#0", "a chunk"), ("other#state", "{}")],
        )
    )
    assert "units\t95 current, 5 candidate, 0 open, 0 moved\n" in experiment("status", "desk")
    assert experiment("report", "desk", "--out", "report.md") == "report: report.md\n"
    assert (tmp_path / "report.md").read_text().startswith(f"# Experiment {began.id}\n")
    lines = run_here("experiment", "report", "desk", *desk.at, "--experiment", "x").stderr.splitlines()
    assert lines == [
        "experiment other: passed over, as experiment: Field required",
        f"murmura: desk has no experiment 'x'; it has {began.id}",
    ]
    done = run_here("experiment", "report", "desk", *desk.at, "--out", "no/report.md", cwd=tmp_path)
    assert done.stderr.endswith("murmura: --out no/report.md: No such file or directory\n")
    desk.run("stop")
    assert f"its latest was {began.id}: `murmura experiment report desk`" in experiment("status", "desk")
    assert "shop has no release in murmura.models" in refused_here("experiment", "status", "shop", *desk.at)


async def send_all(kafka: KafkaSettings, topic: str, records: list[tuple[str, str]]) -> None:
    producer = producer_factory(kafka, ProducerSettings())()
    await producer.start()
    try:
        for key, value in records:
            await producer.send_and_wait(topic, value.encode(), key.encode())
    finally:
        await producer.stop()


def test_doctor_sees_whether_rules_may_have_to_write_releases(desk):
    settings = Settings(kafka=desk.kafka, model={"store": str(desk.store), "name": "desk"})
    topics = {"murmura.models": 1}
    assert _find_trials(settings, topics) == set()
    desk.run("canary", 3, "--no-power")
    assert _find_trials(settings, topics) == {"experiment"}
    other = Settings(kafka=desk.kafka, model={"store": str(desk.store), "name": "shop"})
    assert _find_trials(other, topics) == set()
    desk.run("stop")
    desk.run("shadow", 3)
    assert _find_trials(settings, topics) == {"shadow"}
