"""What waits is bounded: python benchmarks/bounds.py [--short] [--only garbage|attachments] [--delta FOLDER].

Serves in a process of its own on a real Kafka, with the demo's model, and reads that process's resident memory 20 times a
second.

garbage: requests of one topic beside a backlog of 150,000 that waits on another topic's 12 partitions when the process
starts, once of records that cannot be read and once of good ones: latency of the requests while the backlog is worked
off, and the most memory in that time.
attachments: 12 partitions of requests with 200 kB beside their text: the memory that they cost, against its bound.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition
from real_kafka import make_topics, real_kafka

DEMO_MODEL = Path(__file__).parents[1] / "scenarios/support/model"
GARBAGE, GOOD = b"garbage", b'{"text":"hi there"}'
ATTACHMENT = json.dumps({"text": "where is my card?", "attachment": "x" * 200_000}).encode()
TOPICS = ("classification.requests", "classification.results", "analysis.requests", "analysis.results", "deadletters")


class Served:
    """A serving process, and its resident memory (MB) since it was idle."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.idle = self.peak = 0.0

    def resident(self) -> float:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1]) / 1024

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.resident())
            await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(bootstrap: str, prefix: str, model: Path) -> AsyncIterator[Served]:
    environment = {
        **os.environ,
        "MURMURA_PREFIX": prefix,
        "MURMURA_APP": prefix,
        "MURMURA_HTTP": "127.0.0.1:0",
        "MURMURA_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "MURMURA_LOG__LEVEL": "error",
    }
    command = [Path(sys.executable).with_name("murmura"), "serve", "classification", "analysis", "--model", model]
    process = subprocess.Popen(command, env=environment)
    try:
        yield Served(process)
    finally:
        process.terminate()
        process.wait(60)


async def fill(bootstrap: str, topic: str, value: bytes, count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, max_batch_size=1 << 20, acks=1)
    await producer.start()
    partitions = sorted(await producer.partitions_for(topic))
    for number in range(count):
        await producer.send(topic, value, partition=partitions[number % len(partitions)])
    await producer.stop()


async def requests_beside(bootstrap: str, prefix: str, served: Served, backlog: int, most_s: float) -> str:
    """Send 20 requests a second on one topic while the backlog of the other is worked off."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=0)
    consumer = AIOKafkaConsumer(f"{prefix}.analysis.results", bootstrap_servers=bootstrap, fetch_max_wait_ms=10)
    finished = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await asyncio.gather(producer.start(), consumer.start(), finished.start())
    sent: dict[str, float] = {}
    took: list[float] = []

    async def collect() -> None:
        async for record in consumer:
            began = sent.pop(json.loads(record.value)["request_id"], None)
            if began is not None:
                took.append(time.perf_counter() - began)

    async def ask() -> None:
        name = uuid.uuid4().hex
        sent[name] = time.perf_counter()
        await producer.send(f"{prefix}.analysis.requests", json.dumps({"text": "hi there", "id": name}).encode())

    collecting = asyncio.create_task(collect())
    await ask()
    while not took:
        await asyncio.sleep(0.1)
    took.clear()
    watching = asyncio.create_task(served.watch())
    outputs = [
        TopicPartition(f"{prefix}.{name}", p) for name in ("classification.results", "deadletters") for p in range(12)
    ]
    began, done = time.perf_counter(), 0
    while done < 0.95 * backlog and time.perf_counter() - began < most_s:
        await ask()
        await asyncio.sleep(0.05)
        done = sum((await finished.end_offsets(outputs)).values())
    worked_s = time.perf_counter() - began
    while sent and time.perf_counter() - began < most_s + 30:
        await asyncio.sleep(0.05)
    for task in (collecting, watching):
        task.cancel()
    await asyncio.gather(producer.stop(), consumer.stop(), finished.stop())
    took.sort()
    return (
        f"p50 {took[len(took) // 2] * 1000:.0f} ms, p99 {took[int(0.99 * len(took))] * 1000:.0f} ms, max {took[-1] * 1000:.0f} ms "
        f"of {len(took)} ({len(sent)} unanswered), {done:,} finished in {worked_s:.0f} s, "
        f"at most {served.peak:.0f} MB"
    )


async def garbage(bootstrap: str, model: Path, backlog: int, most_s: float) -> None:
    for name, value in (("good records", GOOD), ("garbage", GARBAGE)):
        prefix = f"bounds-{uuid.uuid4().hex[:6]}"
        await make_topics(bootstrap, [f"{prefix}.{topic}" for topic in TOPICS], partitions=12)
        await fill(bootstrap, f"{prefix}.classification.requests", value, backlog)
        async with serving(bootstrap, prefix, model) as served:
            line = await requests_beside(bootstrap, prefix, served, backlog, most_s)
        print(f"beside {backlog:,} {name}: {line}", flush=True)


async def attachments(bootstrap: str, model: Path, count: int) -> None:
    prefix = f"bounds-{uuid.uuid4().hex[:6]}"
    await make_topics(bootstrap, [f"{prefix}.{topic}" for topic in TOPICS], partitions=12)
    results = [TopicPartition(f"{prefix}.classification.results", partition) for partition in range(12)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()

    async def answered(until: int) -> None:
        async with asyncio.timeout(300):
            while sum((await consumer.end_offsets(results)).values()) < until:
                await asyncio.sleep(0.2)

    async with serving(bootstrap, prefix, model) as served:
        await fill(bootstrap, f"{prefix}.classification.requests", GOOD, 12)
        await answered(12)
        served.idle = served.peak = served.resident()
        watching = asyncio.create_task(served.watch())
        await fill(bootstrap, f"{prefix}.classification.requests", ATTACHMENT, count)
        await answered(12 + count)
        watching.cancel()
    await consumer.stop()
    print(
        f"{count:,} requests with 200 kB each ({count * 0.2:.0f} MB) on 12 partitions: memory +{served.peak - served.idle:.0f} MB "
        f"(idle {served.idle:.0f} MB; bound 134 MB and what the client has fetched)"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--delta", type=Path, default=DEMO_MODEL, help="a model or delta folder; default: the demo's")
    parser.add_argument("--only", choices=["garbage", "attachments"])
    parser.add_argument("--data", help="not read; every benchmark takes it")
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    with real_kafka(args.bootstrap) as bootstrap:
        if args.only in {None, "garbage"}:
            await garbage(bootstrap, args.delta, 30_000 if args.short else 150_000, 10 if args.short else 40)
        if args.only in {None, "attachments"}:
            await attachments(bootstrap, args.delta, 2000 if args.short else 6000)


if __name__ == "__main__":
    asyncio.run(main())
