"""Two agents on one input, one of them at fault: what the other one's results wait for.

    python benchmarks/faults.py [--short] [--only undeclared|deleted|refused] [--bootstrap HOST:PORT]

undeclared: the decisions of one agent name a topic that is not there.
deleted: the output that one agent declares is deleted while the process runs.
refused: one agent sends a message without a key to a compacted topic, which the broker refuses for good.

A real Kafka, a process in this one, and a model that answers at once. Requests are sent in two halves, a second apart.
Printed are the seconds from the first request to the first and the last result of the other agent, and the dead letters by
reason at the end.
"""

import argparse
import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from real_kafka import make_topics, real_kafka

from murmura.runtime import serve as app
from murmura.runtime.agent.agent import Agent, agent
from murmura.runtime.observe import logs
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel
from murmura.runtime.wire.message import Publish
from murmura.schemas.deadletter import PREFIX
from murmura.schemas.manifest import TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=["card", "loan"])
FAULTS = ("undeclared", "deleted", "refused")


def agents(prefix: str, fault: str) -> list[Agent]:
    requests = [f"{prefix}.requests"]

    @agent(topics=requests, output=f"{prefix}.good", name="good")
    def good(request, prediction):
        return prediction.outputs

    if fault == "deleted":

        @agent(topics=requests, output=f"{prefix}.bad", name="bad")
        def bad(request, prediction):
            return prediction.outputs
    else:
        topic = f"{prefix}.{'compacted' if fault == 'refused' else 'nowhere'}"

        @agent(topics=requests, name="bad")
        def bad(request, prediction):
            return Publish(topic, b"without a key")

    return [good, bad]


@asynccontextmanager
async def serving(bootstrap: str, prefix: str, everyone: Sequence[Agent]) -> AsyncIterator[None]:
    settings = Settings(
        app=prefix, prefix=prefix, http="127.0.0.1:0", kafka={"bootstrap_servers": bootstrap, "drain_s": 1.0}
    )
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        app.serve(settings, everyone, stop=stop, ready=ready.set_result, model=FakeModel([INTENT]))
    )
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    try:
        if task.done():
            task.result()
        yield
    finally:
        stop.set()
        await asyncio.wait([task], timeout=60)
        task.cancel()


async def set_scene(bootstrap: str, prefix: str, fault: str) -> None:
    names = [f"{prefix}.{name}" for name in ("requests", "good", "bad", "deadletters")]
    await make_topics(bootstrap, names, partitions=1)
    if fault == "refused":
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        compacted = NewTopic(f"{prefix}.compacted", 1, 1, topic_configs={"cleanup.policy": "compact"})
        await admin.create_topics([compacted])
        await admin.close()


async def delete(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()


async def send_halves(bootstrap: str, topic: str, count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    for number in range(count):
        if number == count // 2:
            await producer.flush()
            await asyncio.sleep(1.0)
        await producer.send(topic, json.dumps({"text": f"request {number}"}).encode())
    await producer.stop()


async def measure(bootstrap: str, fault: str, records: int, most_s: float) -> str:
    prefix = f"faults-{uuid.uuid4().hex[:6]}"
    await set_scene(bootstrap, prefix, fault)
    consumer = AIOKafkaConsumer(
        f"{prefix}.good", f"{prefix}.deadletters", bootstrap_servers=bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    came: list[float] = []
    reasons: Counter[str] = Counter()
    async with serving(bootstrap, prefix, agents(prefix, fault)):
        if fault == "deleted":
            await delete(bootstrap, f"{prefix}.bad")
        began = time.perf_counter()
        sending = asyncio.create_task(send_halves(bootstrap, f"{prefix}.requests", records))
        while len(came) < records and time.perf_counter() - began < most_s:
            await collect(consumer, came, reasons)
        settled = time.perf_counter() + 3.0
        while time.perf_counter() < settled:
            await collect(consumer, came, reasons)
        await sending
    await consumer.stop()
    if not came:
        return f"{fault}: none of {records} results of the other agent in {most_s:.0f} s; dead letters {dict(reasons)}"
    return (
        f"{fault}: {len(came)} of {records} results of the other agent, the first after {came[0] - began:.2f} s, "
        f"the last after {came[-1] - began:.2f} s; dead letters {dict(reasons)}"
    )


async def collect(consumer: AIOKafkaConsumer, came: list[float], reasons: "Counter[str]") -> None:
    for partition, records in (await consumer.getmany(timeout_ms=50)).items():
        if partition.topic.endswith(".good"):
            came += [time.perf_counter()] * len(records)
        else:
            reasons.update(dict(record.headers)[f"{PREFIX}reason"].decode() for record in records)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--only", choices=FAULTS)
    parser.add_argument("--data", type=Path, help="not read; every benchmark takes it")
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    logs.configure("error")
    with real_kafka(args.bootstrap) as bootstrap:
        for fault in [args.only] if args.only else FAULTS:
            print(await measure(bootstrap, fault, 20, 20 if args.short else 90), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
