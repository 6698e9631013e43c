"""What happens to a topic while it is read: nothing is lost, and only what it concerns is affected. On real brokers."""

import asyncio
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import NoOffsetForPartitionError
from aiokafka.structs import TopicPartition
from confluent_kafka import Producer
from kafka_topics import create_topics
from served_process import Process, ended
from serving import Desk, ids, reason

from murmura.agents.classification import agent as classification
from murmura.runtime.flow.fetching.fetch_positions import FetchPositions
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.kafka.start_positions import StartPositions
from murmura.runtime.observe.metrics import Metrics

TOPICS = ("requests", "classified", "analysed", "deadletters")


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def make_again(bootstrap: str, topic: str) -> None:
    async with admin(bootstrap) as client:
        await client.delete_topics([topic])
    async with asyncio.timeout(60):
        while True:
            try:
                await create_topics(bootstrap, [topic], 3, {})
            except AssertionError:  # still being deleted
                await asyncio.sleep(0.05)
            else:
                return


async def widen(bootstrap: str, partitions: int, *topics: str) -> None:
    async with admin(bootstrap) as client:
        await client.create_partitions({topic: NewPartitions(partitions) for topic in topics})


async def get(url: str, path: str) -> str:
    def fetch() -> str:
        try:
            with urllib.request.urlopen(url + path) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.read().decode()

    return await asyncio.to_thread(fetch)


async def reading(url: str, metric: str) -> dict[str, float]:
    """Return the samples of a metric by their labels."""
    lines = [line for line in (await get(url, "/metrics")).splitlines() if line.startswith(metric + "{")]
    return {line[len(metric) : line.rindex(" ")]: float(line.rsplit(" ", 1)[1]) for line in lines}


def requests(stem: str, count: int) -> list[dict]:
    return [{"id": f"{stem}{n}", "text": f"my card was lost {n}"} for n in range(count)]


async def answered(desk: Desk, names: set[str], patience_s: float = 40) -> None:
    async with asyncio.timeout(patience_s):
        count = len(names)
        while not names <= set(ids(records := await desk.read(desk.classified, count, patience_s=patience_s))):
            count = len(records) + 1


async def committed_to_the_end(desk: Desk) -> None:
    async with asyncio.timeout(60):
        while await desk.committed() != await desk.ends():
            await asyncio.sleep(0.1)


async def test_a_topic_made_again_while_a_backlog_is_worked_off_is_answered_within_15_seconds(desk: Desk):
    async with desk.serving() as serving:
        await desk.send(*requests("old", 600))
        await desk.read(desk.classified, 100)
        await make_again(desk.bootstrap, desk.requests)
        began = time.monotonic()
        await desk.send(*requests("new", 30))
        await answered(desk, {f"new{n}" for n in range(30)})
        assert time.monotonic() - began < 15
        assert sum((await reading(serving.url, "murmura_new_logs_total")).values()) >= 1
    assert await desk.committed() == await desk.ends()


async def test_a_topic_made_again_while_its_partitions_are_paused_is_noticed_and_answered_afterwards(desk: Desk):
    desk.agents = [replace(classification, topics=(desk.requests,), output=desk.classified)]
    async with desk.serving(agents={"classification": {"probe_pause_s": 0.2}}) as serving:
        await desk.send(*requests("first", 30))
        await answered(desk, {f"first{n}" for n in range(30)})
        async with admin(desk.bootstrap) as client:
            await client.delete_topics([desk.classified])
        async with asyncio.timeout(60):  # what comes while the agent is suspended finds its partition paused
            while "murmura_paused_partitions 3.0" not in await get(serving.url, "/metrics"):
                await desk.send(*requests("old", 9))
                await asyncio.sleep(0.5)
        await make_again(desk.bootstrap, desk.requests)
        await desk.send(*requests("new", 9))
        async with asyncio.timeout(60):
            while sum((await reading(serving.url, "murmura_new_logs_total")).values()) < 3:
                await asyncio.sleep(0.1)
        await create_topics(desk.bootstrap, [desk.classified], 3, {})
        await answered(desk, {f"new{n}" for n in range(9)})
        await committed_to_the_end(desk)


async def test_partitions_that_are_added_are_read_from_their_beginning_and_their_results_find_a_partition(desk: Desk):
    desk.agents = [replace(classification, topics=(desk.requests,), output=desk.classified)]
    async with desk.serving(kafka={"bootstrap_servers": desk.bootstrap, "auto_offset_reset": "latest"}) as serving:
        async with asyncio.timeout(60):  # until each partition's end has been looked up
            while len(await reading(serving.url, "murmura_consumer_lag_records")) < 3:
                await asyncio.sleep(0.1)
        await desk.send(*requests("before", 9))
        await answered(desk, {f"before{n}" for n in range(9)})
        await widen(desk.bootstrap, 5, desk.requests)
        for stem in ("inputs", "both"):
            for partition in range(5):
                await desk.send(*requests(f"{stem}{partition}-", 4), partition=partition)
            await answered(desk, {f"{stem}{partition}-{n}" for partition in range(5) for n in range(4)})
            if stem == "inputs":
                await widen(desk.bootstrap, 5, desk.classified)
    with pytest.raises(TimeoutError):
        await desk.read(desk.dead_letters, 1, patience_s=1)


async def test_markers_and_aborted_records_are_no_lag_and_are_committed_over(desk: Desk):
    async with desk.serving() as serving:
        await asyncio.to_thread(send_in_transactions, desk)
        await answered(desk, {"t0", "t2", "t3"})
        async with asyncio.timeout(60):
            while set((await reading(serving.url, "murmura_consumer_lag_records")).values()) != {0.0}:
                await asyncio.sleep(0.1)
        await desk.send(*requests("u", 1))
        await answered(desk, {"u0"})
    assert await desk.committed() == await desk.ends()
    assert "t1" not in ids(await desk.read(desk.classified, 4))


def send_in_transactions(desk: Desk) -> None:
    producer = Producer({"bootstrap.servers": desk.bootstrap, "transactional.id": desk.prefix})
    producer.init_transactions()
    for n in range(4):
        producer.begin_transaction()
        value = json.dumps({"id": f"t{n}", "text": "card payment declined"})
        producer.produce(desk.requests, value, partition=n % 2)
        producer.flush()
        if n == 1:
            producer.abort_transaction()
        else:
            producer.commit_transaction()


async def test_with_latest_what_comes_after_the_first_start_survives_a_crash(desk: Desk, tmp_path: Path):
    latest = {"auto_offset_reset": "latest"}
    await desk.send(*requests("old", 6))
    first = Process(desk, tmp_path, 0, **latest)
    with ended([first]):
        await first.until("partitions assigned")
        await committed_to_the_end(desk)
        first.end(signal.SIGKILL)
    await desk.send(*requests("new", 6))
    async with desk.serving(kafka={"bootstrap_servers": desk.bootstrap, **latest}):
        await answered(desk, {f"new{n}" for n in range(6)})
    assert not [name for name in ids(await desk.read(desk.classified, 6)) if name.startswith("old")]


async def test_with_latest_a_record_that_cannot_be_unpacked_sends_no_partition_back(desk: Desk, spoiled_batch):
    await desk.send(*requests("old", 20))
    async with desk.serving(kafka={"bootstrap_servers": desk.bootstrap, "auto_offset_reset": "latest"}):
        await committed_to_the_end(desk)
        await spoiled_batch(desk.bootstrap, TopicPartition(desk.requests, 0))
        await desk.send(*requests("new", 9))
        await answered(desk, {f"new{n}" for n in range(9)})
        (letter,) = await desk.read(desk.dead_letters, 1)
        await committed_to_the_end(desk)
    assert (reason(letter), dict(letter.headers)["murmura_dl_partition"]) == ("unreadable", b"0")
    assert sorted(ids(await desk.read(desk.classified, 9))) == [f"new{n}" for n in range(9)]


async def test_the_first_records_of_a_partition_are_read_again_from_the_committed_offset_after_they_were_lost(
    desk: Desk,
):
    started, fresh = (TopicPartition(desk.requests, number) for number in range(2))
    for partition in (started, fresh):
        await desk.send(*requests("r", 5), partition=partition.partition)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=desk.bootstrap, group_id=desk.prefix, auto_offset_reset="none", enable_auto_commit=False
    )
    consumer.subscribe([desk.requests])
    await consumer.start()
    starts = StartPositions(desk.settings().kafka, desk.prefix)
    positions = FetchPositions(lambda: consumer, starts, Tracker(), Metrics(), lambda partition: None)

    async def read() -> dict[TopicPartition, list[int]]:
        found: dict[TopicPartition, list[int]] = {started: [], fresh: []}
        async with asyncio.timeout(60):
            while len(found[started]) < 3 or len(found[fresh]) < 5:
                try:
                    batches = await consumer.getmany(timeout_ms=100)
                except NoOffsetForPartitionError as error:
                    await positions.begin(error.args)
                    continue
                for partition, records in batches.items():
                    found[partition] += [record.offset for record in records]
        return found

    try:
        while not consumer.assignment():
            await asyncio.sleep(0.05)
        await consumer.commit({started: 2})
        expected = {started: [2, 3, 4], fresh: [0, 1, 2, 3, 4]}
        assert await read() == expected
        positions.rewind()
        assert await read() == expected
    finally:
        await consumer.stop()


async def test_with_latest_a_topic_that_is_made_again_is_read_from_its_beginning(desk: Desk):
    desk.agents = [replace(classification, topics=(desk.requests,), output=desk.classified)]
    async with desk.serving(kafka={"bootstrap_servers": desk.bootstrap, "auto_offset_reset": "latest"}) as serving:
        async with asyncio.timeout(60):  # what is sent before the start is known is not read
            while len(await reading(serving.url, "murmura_consumer_lag_records")) < 3:
                await asyncio.sleep(0.05)
        for partition in range(3):
            await desk.send(*requests(f"before{partition}-", 20), partition=partition)
        await answered(desk, {f"before{partition}-{n}" for partition in range(3) for n in range(20)})
        await make_again(desk.bootstrap, desk.requests)
        for partition in range(3):
            await desk.send(*requests(f"after{partition}-", 5), partition=partition)
        await answered(desk, {f"after{partition}-{n}" for partition in range(3) for n in range(5)})
        await committed_to_the_end(desk)


async def test_results_keep_the_partition_of_their_request_while_both_topics_have_as_many_now(desk: Desk):
    """The topic of results is widened first: its partitions exist, and still no result may take its number from there."""
    desk.agents = [replace(classification, topics=(desk.requests,), output=desk.classified)]

    async def partitions_kept(stem: str, partitions: int) -> bool:
        names = {(partition, n): f"{stem}{partition}-{n}" for partition in range(partitions) for n in range(8)}
        for partition in range(partitions):
            await desk.send(*({"id": names[partition, n], "text": "card"} for n in range(8)), partition=partition)
        await answered(desk, set(names.values()))
        found = {json.loads(each.value)["request_id"]: each.partition for each in await desk.read(desk.classified, 1)}
        return all(found[name] == partition for (partition, _), name in names.items())

    async with desk.serving(kafka={"bootstrap_servers": desk.bootstrap, "metadata_max_age_ms": 300}):
        assert await partitions_kept("narrow", 3)
        for topic, kept in ((desk.classified, False), (desk.requests, True)):
            await widen(desk.bootstrap, 5, topic)
            async with asyncio.timeout(60):
                number = 0
                while await partitions_kept(f"{topic}{number}", 5 if kept else 3) is not kept:
                    number += 1
    assert await desk.read(desk.dead_letters, 0) == []


async def test_a_topic_that_may_not_be_read_costs_only_itself(guarded_kafka, make_topics, unique, tiny_model):
    prefix, bootstrap = unique("denied"), guarded_kafka.bootstrap
    await make_topics(*TOPICS, "closed", prefix=prefix, bootstrap=bootstrap)
    desk, closed = Desk(bootstrap, prefix, tiny_model), f"{prefix}.closed"
    desk.agents = [replace(classification, topics=(desk.requests, closed), output=desk.classified)]
    async with desk.serving() as serving:
        await desk.send(*requests("a", 3), topic=closed)
        await answered(desk, {"a0", "a1", "a2"})
        with guarded_kafka.denied(closed, "read"):
            await asyncio.sleep(2)
            await desk.send(*requests("b", 3), topic=closed)
            await desk.send(*requests("c", 3))
            await answered(desk, {"c0", "c1", "c2"})
            ready = json.loads(await get(serving.url, "/readyz"))
            assert ready["ready"]
            assert set(ready["blocked_partitions"].values()) == {"TopicAuthorizationFailedError"}
            assert all(name.startswith(closed) for name in ready["blocked_partitions"])
        await answered(desk, {"b0", "b1", "b2"})
        async with asyncio.timeout(60):
            while "blocked_partitions" in json.loads(await get(serving.url, "/readyz")):
                await asyncio.sleep(0.2)


async def test_a_stop_ends_in_time_while_the_broker_is_frozen(own_kafka, make_topics, unique, tiny_model, tmp_path):
    prefix = unique("frozen")
    await make_topics(*TOPICS, prefix=prefix, bootstrap=own_kafka.bootstrap)
    desk = Desk(own_kafka.bootstrap, prefix, tiny_model)
    process = Process(desk, tmp_path, drain_s=2)
    with ended([process]):
        await process.until("serving")
        await desk.send(*requests("r", 50))
        await answered(desk, {"r0"})
        own_kafka.freeze()
        try:
            began = time.monotonic()
            os.kill(process.process.pid, signal.SIGTERM)
            await asyncio.to_thread(process.process.wait, 60)
            assert time.monotonic() - began < 20, "a request to the broker may take 40"
        finally:
            own_kafka.thaw()
