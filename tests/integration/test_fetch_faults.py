"""A fetch that fails for one partition beside records that cannot be unpacked: the others lose nothing."""

import asyncio
import json
from dataclasses import replace

import aiokafka.codec
from aiokafka import AIOKafkaProducer
from aiokafka.structs import TopicPartition
from serving import Desk, ids, reason, until

from murmura.agents.classification import agent as classification


def requests(stem: str, count: int) -> list[dict]:
    return [{"id": f"{stem}{number}", "text": f"my card was lost {number}"} for number in range(count)]


async def test_a_record_that_cannot_be_unpacked_beside_a_topic_that_may_not_be_read_costs_that_record_alone(
    guarded_kafka, guarded_desk: Desk, make_topics, spoiled_batch
):
    desk = guarded_desk
    (closed,) = await make_topics("closed", prefix=desk.prefix, bootstrap=desk.bootstrap)
    desk.agents = [replace(classification, topics=(desk.requests, closed), output=desk.classified)]
    async with desk.serving() as serving:
        await desk.send(*requests("first", 6), topic=closed)
        await desk.read(desk.classified, 6)
        with guarded_kafka.denied(closed, "read"):
            await until(serving, lambda found: found[1].get("blocked_partitions"))
            await desk.send(*requests("closed", 10), topic=closed)
            await spoiled_batch(desk.bootstrap, TopicPartition(desk.requests, 0))
            await desk.send(*requests("open", 9))
            await desk.read(desk.classified, 15)
            (letter,) = await desk.read(desk.dead_letters, 1)
            assert (reason(letter), dict(letter.headers)["murmura_dl_topic"]) == ("unreadable", desk.requests.encode())
        answered = ids(await desk.read(desk.classified, 25))
    names = [row["id"] for row in (*requests("first", 6), *requests("open", 9), *requests("closed", 10))]
    assert sorted(answered) == sorted(names)
    assert len(await desk.read(desk.dead_letters, 1)) == 1


async def test_a_codec_that_is_not_installed_stops_its_partition_alone_and_finishes_no_record(desk: Desk, monkeypatch):
    producer = AIOKafkaProducer(bootstrap_servers=desk.bootstrap, compression_type="zstd")
    await producer.start()
    for row in requests("packed", 20):
        await producer.send_and_wait(desk.requests, json.dumps(row).encode(), partition=0)
    await producer.stop()
    monkeypatch.setattr(aiokafka.codec, "has_zstd", lambda: False)
    desk.agents = [replace(classification, topics=(desk.requests,), output=desk.classified)]
    async with desk.serving() as serving:
        await desk.send(*requests("plain", 20), partition=1)
        await desk.read(desk.classified, 20)
        await until(serving, lambda found: "UnsupportedCodecError" in str(found[1].get("blocked_partitions")))
        await asyncio.sleep(0.5)
        assert (await desk.committed())[0] == 0
        monkeypatch.undo()
        answered = ids(await desk.read(desk.classified, 40))
    assert sorted(answered) == sorted(row["id"] for row in (*requests("plain", 20), *requests("packed", 20)))
    assert await desk.read(desk.dead_letters, 0) == []
