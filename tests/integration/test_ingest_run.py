"""`murmura ingest` as it is run: its bar, its refusals, and a broker that dies in the middle of it."""

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from cli_in_process import run_here
from ingest_world import World

from murmura.runtime.settings.settings import KafkaSettings
from murmura.training.ingest import make as stages

MURMURA = Path(sys.executable).with_name("murmura")
ROLES = ("feedback", "results", "requests")


async def written(bootstrap: str, make_topics, unique, count: int, padding: int = 0) -> World:
    world = World(unique("run"), partitions=2)
    await make_topics(*ROLES, prefix=world.prefix, partitions=2, bootstrap=bootstrap)
    for n in range(count):
        world.judge(world.ask(f"text {n}" + " x" * padding, partition=n % 2), "refund", partition=n % 2)
    return world


async def plan_of(settings: KafkaSettings, world: World):
    topics = {role: [world.topic(role)] for role in ROLES}
    return await stages.make_plan(settings, **topics)


async def test_the_bar_of_each_stage_reaches_its_end(kafka, make_topics, unique, tmp_path):
    world = await written(kafka, make_topics, unique, 50)
    this = world.ask("more")
    world.judge(this, "f-1", verdict="withdrawn")
    world.judge(this, 1, verdict="reward")
    world.add("feedback", b"no feedback")
    await world.write(kafka)
    settings = KafkaSettings(bootstrap_servers=kafka)
    plan = await plan_of(settings, world)
    told: Counter[str] = Counter()
    await stages.ingest(settings, plan, tmp_path / "set", progress=lambda stage, n: told.update({stage: n}))
    totals = {role: sum(each.records for each in plan.of(role)) for role in ROLES}
    assert told == {**totals, "joining": totals["feedback"]}
    assert totals == {"feedback": 53, "results": 51, "requests": 51}


@pytest.mark.parametrize("option", [("--heldout", "0.2"), ("--split", "conversation"), ("--task", "intent")])
async def test_what_a_manifest_says_is_not_said_again(kafka, make_topics, unique, tmp_path, option):
    world = await written(kafka, make_topics, unique, 3)
    await world.write(kafka)
    settings = KafkaSettings(bootstrap_servers=kafka)
    await stages.ingest(settings, await plan_of(settings, world), tmp_path / "set")
    words = ("ingest", "--from-manifest", tmp_path / "set", "--out", tmp_path / "again", *option, "--bootstrap", kafka)
    done = await asyncio.to_thread(run_here, *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert option[0] in done.stderr.partition("leave out --agent, ")[2]
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
async def test_a_broker_that_dies_in_the_middle_is_one_line_and_leaves_nothing(
    own_kafka, make_topics, unique, tmp_path
):
    bootstrap = own_kafka.bootstrap
    world = await written(bootstrap, make_topics, unique, 8000, padding=400)
    await world.write(bootstrap)
    settings = KafkaSettings(bootstrap_servers=bootstrap)
    await stages.ingest(settings, await plan_of(settings, world), tmp_path / "set")
    config = tmp_path / "murmura.yaml"
    config.write_text(f'kafka: {{bootstrap_servers: "{bootstrap}", request_timeout_ms: 3000}}\n')
    command = [MURMURA, "ingest", "--from-manifest", tmp_path / "set", "--out", tmp_path / "x", "--config", config]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    database = tmp_path / "x.part/join.sqlite"
    async with asyncio.timeout(60):
        while not database.exists():
            await asyncio.sleep(0.005)
    own_kafka.kill()
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, said.count("\n")) == (1, 1), said
    assert "the broker" in said
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("x")) == []
