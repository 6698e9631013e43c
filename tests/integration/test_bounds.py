"""On a real Kafka: what does not fit is fetched again, and every record is answered once all the same."""

import asyncio
import json
from dataclasses import replace

from kafka_topics import create_topics
from serving import Desk, health, ids, reason, until

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.handler import Handler
from murmura.runtime.errors import Retry
from murmura.runtime.wire.message import Publish

BYTES = 100_000


def padded(number: int) -> bytes:
    return json.dumps({"id": f"r{number}", "text": f"my card was lost {number}", "attachment": "x" * 9000}).encode()


async def test_records_that_did_not_fit_are_fetched_again_and_answered_once(desk: Desk):
    good = [padded(number) for number in range(150)]
    await desk.send(*[value for pair in zip(good, [b"garbage"] * 150, strict=True) for value in pair])
    limits = {"max_waiting_bytes": 4 * BYTES, "max_partition_waiting_bytes": BYTES, "max_uncommitted": 25}
    async with desk.serving(limits=limits):
        classified = await desk.read(desk.classified, 150)
        letters = await desk.read(desk.dead_letters, 150)
    assert sorted(ids(classified)) == sorted(f"r{number}" for number in range(150))
    assert {reason(letter) for letter in letters} == {"not_json"}
    offsets = [
        (found["murmura_dl_partition"], found["murmura_dl_offset"]) for found in (dict(m.headers) for m in letters)
    ]
    assert len(offsets) == len({*offsets}) == 150


class Copy(Handler):
    """Copies large records to the analysed topic, each at its second attempt, an hour later, if it `asks`."""

    name, ordering = "copy", "key"

    def __init__(self, desk: Desk, *, asks: bool = False) -> None:
        self.topics, self.outputs, self.asks = (f"{desk.prefix}.turns",), (desk.analysed,), asks

    async def handle(self, record, engine):
        if self.asks:
            raise Retry(3600)
        return [Publish(self.outputs[0], record.value[:10], key=record.key)]


async def send_large_turns(desk: Desk) -> None:
    """Send more bytes to the handler than the process works on at once."""
    for number in range(30):
        await desk.send(b"%010d" % number + b"x" * BYTES, topic=f"{desk.prefix}.turns", key=b"k%d" % number)


async def are_paused(serving, partitions: int) -> None:
    async with asyncio.timeout(60):
        while serving.metrics.registry.get_sample_value("murmura_paused_partitions") != partitions:
            await asyncio.sleep(0.05)


async def test_what_a_handler_cannot_publish_or_tries_later_holds_back_no_other_agent(
    guarded_kafka, guarded_desk: Desk
):
    desk = guarded_desk
    await create_topics(desk.bootstrap, [f"{desk.prefix}.turns"], 3, {})
    alone = replace(classification, topics=(desk.requests,), output=desk.classified)
    settings = {"limits": {"max_waiting_bytes": 20 * BYTES}, "agents": {"copy": {"probe_pause_s": 0.2}}}
    await send_large_turns(desk)
    async with desk.serving([alone, Copy(desk, asks=True)], **settings) as serving:
        await are_paused(serving, 3)
        await desk.send({"id": "r0", "text": "hello"})
        assert ids(await desk.read(desk.classified, 1)) == ["r0"]
    with guarded_kafka.denied(desk.analysed, "write"):
        async with desk.serving([alone, Copy(desk)], **settings) as serving:
            await are_paused(serving, 3)
            await desk.send({"id": "r1", "text": "hello"})
            assert sorted(ids(await desk.read(desk.classified, 2))) == ["r0", "r1"]
            guarded_kafka.allow_again(desk.analysed)
            copies = await desk.read(desk.analysed, 30)
    assert sorted(int(copy.value) for copy in copies) == [*range(30)]
    assert await desk.read(desk.dead_letters, 0) == []


async def test_what_waits_for_a_suspended_agent_moves_at_half_of_its_partitions_share_and_others_go_on(
    guarded_kafka, guarded_desk: Desk
):
    desk, retries = guarded_desk, f"{guarded_desk.prefix}.retries"
    await create_topics(desk.bootstrap, [retries], 3, {})
    names = sorted(f"r{number}" for number in range(60))
    settings = {
        "limits": {"max_waiting_bytes": 8 * BYTES},  # a share of 100 kB for each of six partitions
        "agents": {"analysis": {"probe_pause_s": 0.2}},
        "retries": {"in_memory_s": 0.1, "steps_s": [0.2]},
    }
    with guarded_kafka.denied(desk.analysed, "write"):
        async with desk.serving(**settings) as serving:
            await desk.send(*map(padded, range(60)), partition=0)
            assert sorted(ids(await desk.read(desk.classified, 60))) == names
            await until(serving, lambda found: "analysis" in found[1].get("suspended_agents", {}))
            moved = await desk.read(retries, 40)
            assert {dict(record.headers)["murmura_only_agent"] for record in moved} == {b"analysis"}
            _, found = await health(serving)
            assert 0 < found["suspended_agents"]["analysis"]["waiting"] < 20
            guarded_kafka.allow_again(desk.analysed)
            analysed = await desk.read(desk.analysed, 60)
            async with asyncio.timeout(60):
                while await desk.committed() != await desk.ends():
                    await asyncio.sleep(0.1)
    assert sorted(ids(analysed)) == names
    assert len(await desk.read(desk.classified, 60)) == 60
    assert await desk.read(desk.dead_letters, 0) == []
