"""The rights that a user lacks are named by command, topic and group, without trying them."""

import asyncio
import itertools
from pathlib import Path

import pytest
import yaml
from kafka_topics import create_topics
from typer.testing import CliRunner

from murmura.runtime.agent.agent import Agent
from murmura.runtime.agent.handler import Handler
from murmura.runtime.cli import main as cli
from murmura.runtime.cli.required_permissions import REQUIRED, needs
from murmura.runtime.kafka import permissions
from murmura.runtime.kafka.permissions import Need
from murmura.runtime.settings.reviews import ReviewSettings
from murmura.runtime.settings.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.kafka


@pytest.fixture
async def desk(guarded_kafka, unique):
    prefix = unique("desk")
    kafka = {"bootstrap_servers": guarded_kafka.bootstrap, "group": unique("group")}
    topics = [f"{prefix}.{name}" for name in ("in", "out", "deadletters", "retries")]
    await create_topics(guarded_kafka.bootstrap, topics, 1, {})
    settings = Settings(prefix=prefix, kafka=kafka)
    agent = Agent("desk", (topics[0],), output=topics[1])
    return settings, needs(settings, [agent]), topics


async def test_who_may_do_everything_lacks_nothing(desk):
    settings, wanted, topics = desk
    assert await permissions.lacking(settings.kafka, wanted, topics) == []


async def test_what_is_denied_on_topics_and_groups_is_named(desk, guarded_kafka):
    settings, wanted, (requests, results, letters, retries) = desk
    with (
        guarded_kafka.denied(requests, "read"),
        guarded_kafka.denied(results, "write"),
        guarded_kafka.denied(settings.group, "read", kind="group"),
        guarded_kafka.denied(f"{letters}.redrive", "describe", kind="transactional_id"),
    ):
        missing = await permissions.lacking(settings.kafka, wanted, (requests, results, letters, retries))
    assert set(missing) == {
        Need("serve", "READ", "topic", requests),
        Need("put", "READ", "topic", requests),
        Need("trainer", "READ", "topic", requests),
        Need("replay", "READ", "topic", requests),
        Need("ingest", "READ", "topic", requests),
        Need("serve", "WRITE", "topic", results),
        Need("serve", "READ", "group", settings.group),
        Need("put", "READ", "group", settings.group),
        Need("redrive", "DESCRIBE", "transactional id", f"{letters}.redrive"),
    }


async def test_a_group_that_may_not_even_be_seen_counts_as_not_readable(desk, guarded_kafka):
    settings, wanted, topics = desk
    with guarded_kafka.denied(settings.group, "all", kind="group"):
        missing = await permissions.lacking(settings.kafka, wanted, topics)
    assert missing == [Need(command, "READ", "group", settings.group) for command in ("serve", "put")]


def test_doctor_fails_for_what_serving_lacks_and_names_what_others_lack(guarded_kafka, unique, tmp_path):
    prefix = unique("desk")
    names = [f"{prefix}.{name}" for name in ("analysis.requests", "training")]
    asyncio.run(create_topics(guarded_kafka.bootstrap, names, 1, {}))
    config = tmp_path / "murmura.yaml"
    config.write_text(f"prefix: {prefix}\nkafka: {{bootstrap_servers: '{guarded_kafka.bootstrap}'}}\n")
    with guarded_kafka.denied(names[0], "read"), guarded_kafka.denied(names[1], "write"):
        done = CliRunner().invoke(cli.build(), ["doctor", "--config", str(config)])
    assert done.exit_code == 1
    assert f"FAIL rights    serve    lacks READ     on topic {names[0]}" in done.stdout
    assert f"--   rights    trainer  lacks WRITE    on topic {names[1]}" in done.stdout
    assert f"{prefix}.retries" in done.stdout


def test_doctor_fails_for_a_handlers_changelog_that_may_not_be_read(guarded_kafka, unique, tmp_path):
    prefix = unique("desk")
    state = f"{prefix}.dialogue.state"
    asyncio.run(create_topics(guarded_kafka.bootstrap, [state], 1, {}))
    config = tmp_path / "murmura.yaml"
    settings = {
        "prefix": prefix,
        "kafka": {"bootstrap_servers": guarded_kafka.bootstrap},
        "agents": {"dialogue": {"options": {"policy": str(ROOT / "scenarios/support/policy.yaml")}}},
    }
    config.write_text(yaml.safe_dump(settings))
    with guarded_kafka.denied(state, "read"):
        done = CliRunner().invoke(cli.build(), ["doctor", "dialogue", "--config", str(config)])
    assert done.exit_code == 1
    assert f"FAIL rights    serve    lacks READ     on topic {state}" in done.stdout


def test_the_table_of_the_documents_has_what_each_command_needs():
    lines = (ROOT / "docs/operations.md").read_text().splitlines()
    start = next(at for at, line in enumerate(lines) if line == "| | READ | WRITE |") + 2
    written = {}
    for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start:]):
        command, *rights = (cell.strip().replace("`", "") for cell in line[1:-1].split("|"))
        written[command.split()[-1]] = [
            {place.strip() for place in cell.split(";") if place.strip()} for cell in rights
        ]
    assert written == {
        command: [{*rights.get("READ", ())}, {*rights.get("WRITE", ()), *rights.get("DESCRIBE", ())}]
        for command, rights in REQUIRED.items()
    }


def test_every_place_of_the_table_is_a_name_on_the_broker():
    class Keeper(Handler):
        name, topics, outputs, changelogs = "keeper", ("turns",), ("replies", "state"), ("state",)

        async def handle(self, record, engine):
            return ()

    model = {"store": "memory://store", "name": "m"}
    settings = Settings(prefix="desk", app="a", model=model, reviews={"random_per_minute": 1})
    found = needs(settings, [Agent("reads", ("in",), output="out"), Keeper()])
    assert {(need.kind, need.name) for need in found} == {
        *(("topic", name) for name in ("in", "out", "turns", "replies", "state")),
        *(
            ("topic", f"desk.{name}")
            for name in (
                "retries",
                "models",
                "experiments",
                "deadletters",
                "events",
                "reviews",
                "feedback",
                "training",
            )
        ),
        ("group", "murmura.a"),
        ("transactional id", "desk.deadletters.redrive"),
    }
    assert Need("serve", "READ", "topic", "state") in found
    assert Need("ingest", "READ", "topic", "turns") not in found


def test_serving_writes_releases_only_where_an_experiment_runs():
    settings = Settings(prefix="desk", app="a", model={"store": "memory://store", "name": "m"})
    acts = {Need("serve", "WRITE", "topic", f"desk.{name}") for name in ("models", "experiments")}
    assert acts.isdisjoint(needs(settings, []))
    assert acts <= set(needs(settings, [], has_experiment=True))
    assert Need("serve", "READ", "group", "murmura.a.experiments") in needs(settings, [], has_experiment=True)
    differences = {Need("serve", "WRITE", "topic", f"desk.{name}") for name in ("shadow", "reviews")}
    assert differences <= set(needs(settings, [], has_shadow=True)) - set(needs(settings, [], has_experiment=True))


def test_serving_asks_people_about_differences_where_the_settings_say_so():
    settings = Settings(prefix="desk", app="a", model={"store": "memory://store", "name": "m"})
    silent = settings.model_copy(update={"reviews": ReviewSettings(disagreements_per_minute=0)})
    found, less = (set(needs(each, [], has_shadow=True)) for each in (settings, silent))
    assert found - less == {Need("serve", "WRITE", "topic", "desk.reviews")}
