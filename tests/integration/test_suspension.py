"""Topics that are missing or forbidden on a real Kafka cost the agent that declares them, and nobody else."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import replace

import pytest
from kafka_topics import create_topics, delete_topic
from serving import Desk, health, ids, reason, until

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.agent.handler import Handler
from murmura.runtime.errors import MurmuraError
from murmura.runtime.wire.message import Publish
from murmura.schemas.ids import prediction_id

FAST = {name: {"probe_pause_s": 0.2} for name in ("classification", "analysis")}


class Echo(Handler):
    name, ordering = "echo", "key"

    def __init__(self, desk: Desk) -> None:
        self.topics, self.outputs = (desk.requests,), (desk.classified,)

    async def handle(self, record, engine):
        return [Publish(self.outputs[0], record.value, key=record.key)]


def alone(desk: Desk):
    return replace(classification, topics=(desk.requests,), output=desk.classified)


def waiting_for_analysis(found):
    """Number of records that wait for the suspended agent; None while it is not."""
    return found[1].get("suspended_agents", {}).get("analysis", {}).get("waiting")


def texts(*numbers):
    return [{"id": f"r{number}", "text": f"request {number}"} for number in numbers]


def count(serving, name):
    """Sum a metric over the partitions of the requests."""
    families = serving.metrics.registry.collect()
    samples = [sample for family in families if family.name == f"murmura_{name}_records" for sample in family.samples]
    return sum(sample.value for sample in samples)


async def all_finished(desk: Desk):
    async with asyncio.timeout(60):
        while await desk.committed() != await desk.ends():
            await asyncio.sleep(0.1)


async def test_a_deleted_output_of_one_agent_holds_its_part_alone_until_it_is_made_again(desk: Desk):
    async with desk.serving(agents=FAST) as serving:
        await desk.send(*texts(0))
        await desk.read(desk.analysed, 1)
        await delete_topic(desk.bootstrap, desk.analysed)
        await desk.send(*texts(*range(1, 21)))
        assert sorted(ids(await desk.read(desk.classified, 21))) == sorted(f"r{n}" for n in range(21))
        await until(serving, lambda found: waiting_for_analysis(found) == 20)
        status, found = await health(serving)
        assert (status, waiting_for_analysis((status, found))) == (200, 20)
        assert count(serving, "consumer_lag") >= 20
        assert count(serving, "waiting") == 0
        await create_topics(desk.bootstrap, [desk.analysed], 3, {})
        assert sorted(ids(await desk.read(desk.analysed, 20))) == sorted(f"r{n}" for n in range(1, 21))
        await all_finished(desk)
        assert len(await desk.read(desk.classified, 21)) == 21
        assert await desk.read(desk.dead_letters, 0) == []


async def test_a_forbidden_output_holds_one_agents_part_until_it_is_allowed_again(guarded_kafka, guarded_desk: Desk):
    desk = guarded_desk
    with guarded_kafka.denied(desk.analysed, "write"):
        async with desk.serving(agents=FAST) as serving:
            await desk.send(*texts(*range(10)))
            assert len(await desk.read(desk.classified, 10)) == 10
            await until(serving, lambda found: "analysis" in found[1].get("suspended_agents", {}))
            guarded_kafka.allow_again(desk.analysed)
            assert len(await desk.read(desk.analysed, 10)) == 10
            await all_finished(desk)


async def test_an_agent_alone_pauses_its_partitions_and_answers_everything_when_it_may_write_again(
    guarded_kafka, guarded_desk: Desk
):
    desk = guarded_desk
    with guarded_kafka.denied(desk.classified, "write"):
        async with desk.serving([alone(desk)], agents={"classification": FAST["classification"]}) as serving:
            await desk.send(*texts(0))
            await until(serving, lambda found: found[1].get("suspended_agents"))
            await desk.send(*texts(*range(1, 30)))
            await asyncio.sleep(0.5)
            assert set((await desk.committed()).values()) == {0}
            assert (await health(serving))[0] == 200
            assert (count(serving, "consumer_lag"), count(serving, "waiting")) == (30, 0)
            guarded_kafka.allow_again(desk.classified)
            assert len(await desk.read(desk.classified, 30)) == 30
            await all_finished(desk)


async def test_a_handler_whose_output_is_forbidden_keeps_what_it_published_and_sends_it_later(
    guarded_kafka, guarded_desk: Desk
):
    desk = guarded_desk
    with guarded_kafka.denied(desk.classified, "write"):
        async with desk.serving([Echo(desk)], agents={"echo": {"probe_pause_s": 0.2}}) as serving:
            await desk.send(b"one", b"two", key=b"k")
            await until(serving, lambda found: "echo" in found[1].get("suspended_agents", {}))
            assert await desk.read(desk.dead_letters, 0) == []
            guarded_kafka.allow_again(desk.classified)
            assert [record.value for record in await desk.read(desk.classified, 2)] == [b"one", b"two"]
            await all_finished(desk)
            await until(serving, lambda found: "suspended_agents" not in found[1])


async def test_a_handler_that_waits_for_its_output_does_not_hold_a_stop(guarded_kafka, guarded_desk: Desk):
    desk = guarded_desk
    with guarded_kafka.denied(desk.classified, "write"):
        async with desk.serving([Echo(desk)]) as serving:
            await desk.send(b"one", key=b"k")
            await until(serving, lambda found: found[1].get("suspended_agents"))
            began = time.monotonic()
        assert time.monotonic() - began < 20, "shorter than a stop may take"
    assert set((await desk.committed()).values()) == {0}


async def test_an_agent_that_fails_on_everything_is_suspended_and_answers_when_it_is_well_again(desk: Desk):
    broken = [True]

    @agent(topics=[desk.requests], tasks=["intent"], output=desk.analysed, name="frail")
    def frail(request, prediction):
        if broken[0]:
            raise ConnectionError
        return prediction.outputs

    limits = {"frail": {"probe_pause_s": 0.2, "failing_latest": 20}}
    async with desk.serving([alone(desk), frail], agents=limits) as serving:
        await desk.send(*texts(*range(60)))
        assert len(await desk.read(desk.classified, 60)) == 60
        await until(serving, lambda found: "frail" in found[1].get("suspended_agents", {}))
        letters = await desk.read(desk.dead_letters, 10)
        assert [reason(letter) for letter in letters] == ["agent_failed"] * 10
        broken[0] = False
        assert len(await desk.read(desk.analysed, 50)) == 50
        await all_finished(desk)


async def test_a_forbidden_dead_letter_topic_stops_intake_until_it_is_allowed(guarded_kafka, guarded_desk: Desk):
    desk = guarded_desk
    with guarded_kafka.denied(desk.dead_letters, "write"):
        async with desk.serving([alone(desk)]) as serving:
            await desk.send(b"no json")
            await until(serving, lambda found: found[0] == 503 and desk.dead_letters in str(found[1]["reasons"]))
            guarded_kafka.allow_again(desk.dead_letters)
            (letter,) = await desk.read(desk.dead_letters, 1)
            await until(serving, lambda found: found[0] == 200)
            await all_finished(desk)
        assert reason(letter) == "not_json"


async def test_dead_letters_that_are_refused_for_too_long_end_the_process_and_nothing_is_committed(
    guarded_kafka, guarded_desk: Desk
):
    desk = guarded_desk

    async def serve_until_it_ends():
        async with desk.serving([alone(desk)], deadletters={"give_up_s": 1.0}):
            await desk.send(b"no json")
            await asyncio.sleep(2.5)

    with guarded_kafka.denied(desk.dead_letters, "write"), pytest.raises(MurmuraError, match="takes no dead letters"):
        await serve_until_it_ends()
    assert await desk.committed() != await desk.ends()


WAITING = 5
"""Parts of a partition that wait in the process."""
SETTINGS = {
    "agents": FAST | {"analysis": {"probe_pause_s": 0.2, "max_waiting": WAITING}},
    "retries": {"in_memory_s": 0.3, "steps_s": [1.0]},
}


async def test_parts_that_exceed_what_may_wait_go_through_the_topic_of_retries_and_are_answered_once(
    guarded_kafka, guarded_desk: Desk
):
    desk, retries = guarded_desk, f"{guarded_desk.prefix}.retries"
    await create_topics(desk.bootstrap, [retries], 1, {})
    async with desk.serving(**SETTINGS) as serving:
        with guarded_kafka.denied(desk.analysed, "write"):
            await desk.send(*texts(0))
            await until(serving, lambda found: "analysis" in found[1].get("suspended_agents", {}))
            for partition in range(3):
                await desk.send(*texts(*range(1 + 20 * partition, 21 + 20 * partition)), partition=partition)
            assert len(await desk.read(desk.classified, 61)) == 61
            async with asyncio.timeout(60):
                moved = []
                while len({json.loads(each.value)["id"] for each in moved}) < 61 - 3 * WAITING:
                    moved = await desk.read(retries, 61 - 3 * WAITING)
            assert {dict(each.headers)["murmura_only_agent"] for each in moved} == {b"analysis"}
            assert len({json.loads(each.value)["id"] for each in moved}) == 61 - 3 * WAITING
            waiting = (200, 3 * WAITING)
            await until(
                serving, lambda found: (found[0], found[1]["suspended_agents"]["analysis"]["waiting"]) == waiting
            )
        names = [f"r{number}" for number in range(61)]
        async with asyncio.timeout(60):
            while sorted(ids(results := await desk.read(desk.analysed, 61))) != sorted(names):
                pass
        await all_finished(desk)
        await asyncio.sleep(1.5)  # a step and more: what came round again would be answered by now
    counted = Counter(json.loads(each.value)["prediction_id"] for each in await desk.read(desk.analysed, 61))
    assert counted == Counter(prediction_id("analysis", desk.requests, name) for name in names)
    assert {each.partition for each in results} == {0, 1, 2}
    assert len(await desk.read(desk.classified, 61)) == 61
    assert await desk.read(desk.dead_letters, 0) == []
