"""The process that holds experiments is killed or frozen, or loses its broker: sums and decisions are those of a run without a fault."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from experiment_world import MODELS, World
from kafka_broker import NoBroker, OwnBroker

from murmura.runtime.kafka.changelog import read_to_end
from murmura.runtime.release.states import read_states
from murmura.schemas.experiment_state import ExperimentState
from murmura.schemas.release import ReleaseState

BEHIND_S = -16 * 60.0
"""The clock while the first minutes are all there is."""
TESTS = Path(__file__).resolve().parents[1]


@contextmanager
def other_holder(world: World, folder: Path, *group: object):
    """A process that holds the experiments. Its clock is the file that is yielded with it. `group`: see `held_experiments.py`."""
    name = str(group[0]) if group else "holder"
    clock, log = folder / f"{name}.clock", folder / f"{name}.log"
    clock.write_text(str(BEHIND_S))
    command = [
        sys.executable,
        TESTS / "held_experiments.py",
        world.settings.kafka.bootstrap_servers,
        world.prefix,
        clock,
        *group,
    ]
    with log.open("wb") as file:
        environment = os.environ | {"PYTHONPATH": str(TESTS)}
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        yield process, clock, log
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def begun(world: World, make_topics, bootstrap: str):
    """Topics with the first minutes of the experiments, and a producer for the others."""
    await world.make_topics(make_topics, bootstrap)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        await world.start_experiments(producer)
        await world.publish(producer, range(3))
        yield producer


async def is_decided(world: World) -> bool:
    states = await read_states(world.settings.kafka, f"{world.prefix}.models")
    candidate = states["better"].candidate
    is_promoted = candidate is not None and candidate.experiment.promoted is not None
    kept = await world.read_kept()
    return is_promoted and states["worse"].candidate is None and kept["worse"].ended is not None


async def assert_undisturbed(world: World) -> None:
    """Both decisions are those of a run without a fault, and each was released once."""
    kept = await world.read_kept()
    expected = await world.count_undisturbed({model: state.minute for model, state in kept.items()})
    for model in MODELS:
        assert kept[model].decided[:1] == expected[model].decided[:1]
        assert (kept[model].sums, kept[model].units) == (expected[model].sums, expected[model].units)
    assert [each.action for each in kept["better"].decided + kept["worse"].decided] == ["promote", "stop"]
    assert sum(kept["better"].units.values()) > 200
    assert kept["better"].skipped == expected["better"].skipped == {}
    assert kept["worse"].ended.by == "stopped"
    states = await read_states(world.settings.kafka, f"{world.prefix}.models")
    assert {model: states[model].generation for model in MODELS} == {"better": 3, "worse": 3}


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_another_process_takes_over(kafka, make_topics, unique, tmp_path, fault):
    world = World(kafka, unique("held"))
    with other_holder(world, tmp_path) as (process, clock, log):
        async with begun(world, make_topics, kafka) as producer:
            await world.wait_for(world.has_kept_both)
            process.send_signal(signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
            await world.publish(producer, range(3, 14))
        async with world.holding():
            await world.wait_for(lambda: is_decided(world))
            before = (await world.read_kept())["worse"]
            if fault == "frozen":
                written = len(log.read_bytes())
                clock.write_text("0")
                process.send_signal(signal.SIGCONT)
                await world.wait_for(lambda: has_noticed(log, written))
                await asyncio.sleep(3.0)  # what it writes late has been written
            await world.wait_for(lambda: has_kept(world, before))
        await assert_undisturbed(world)


async def test_of_two_processes_that_hold_and_act_in_the_same_instant_one_wins(kafka, make_topics, unique, tmp_path):
    world, meeting = World(kafka, unique("held")), tmp_path / "meeting"
    meeting.mkdir()
    with (
        other_holder(world, tmp_path, f"{world.prefix}-one", meeting) as (_, clock, log),
        other_holder(world, tmp_path, f"{world.prefix}-other", meeting) as (_, other_clock, other_log),
    ):
        async with begun(world, make_topics, kafka) as producer:
            await world.publish(producer, range(3, 14))
            for each in (clock, other_clock):
                each.write_text("0")
            await world.wait_for(lambda: is_decided(world))

        async def both_know() -> bool:
            said = log.read_text() + other_log.read_text()
            return said.count("an experiment was decided") == said.count("a decision was not released") == len(MODELS)

        await world.wait_for(both_know)
    assert {each.name.split("-")[0] for each in meeting.iterdir()} == {"0", "1"}
    assert len([*meeting.iterdir()]) == 4, "both have sent both steps"
    await assert_undisturbed(world)
    states = await read_states(world.settings.kafka, f"{world.prefix}.models")
    steps = {model: [step.experiment for step in states[model].history] for model in MODELS}
    assert steps == {"better": [None, "started", "promoted"], "worse": [None, "started", "stopped"]}
    assert await read_last(world) == states


async def read_last(world: World) -> dict[str, ReleaseState]:
    """Return what compaction leaves of the release topic: the last record of each model."""
    found = {}

    def take(partition: int, key: bytes | None, value: bytes | None) -> None:
        found[(key or b"").decode()] = ReleaseState.model_validate_json(value or b"")

    await read_to_end(world.settings.kafka, f"{world.prefix}.models", [0], take)
    return found


async def has_kept(world: World, ended: ExperimentState) -> bool:
    """Return whether the state at the end is what is kept: another one was written over again."""
    return (await world.read_kept())["worse"] == ended


async def has_noticed(log: Path, written: int) -> bool:
    """Return whether a process that was frozen has found that it is no member any more."""
    return len(log.read_bytes()) > written


@pytest.fixture
def patient_kafka(tmp_path, give_up_kafka):
    """A broker of our own that a busy machine does not make fence itself; it is stopped in order, so that it may come back at once."""
    properties = tmp_path / "patient.properties"
    properties.write_text("broker.session.timeout.ms=120000\n")
    broker = OwnBroker(tmp_path / "kafka", properties)
    try:
        broker.start()
    except NoBroker as refused:
        give_up_kafka(str(refused))
    yield broker
    broker.discard()


@pytest.mark.kafka
async def test_a_broker_that_was_away_costs_no_record(patient_kafka, make_topics, unique):
    world = World(patient_kafka.bootstrap, unique("held"), session_ms=20_000)
    world.ahead_s = BEHIND_S
    async with begun(world, make_topics, patient_kafka.bootstrap), world.holding():
        await world.wait_for(world.has_kept_both)
        await asyncio.to_thread(patient_kafka.stop)
        await asyncio.sleep(3.0)
        await asyncio.to_thread(patient_kafka.start)
        async with AIOKafkaProducer(bootstrap_servers=patient_kafka.bootstrap) as producer:
            await world.publish(producer, range(3, 14))
        world.ahead_s = 0.0
        await world.wait_for(lambda: is_decided(world))
        await assert_undisturbed(world)
