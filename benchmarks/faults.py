"""Faults beside work that goes on: what the results of those who are not concerned wait for.

    python benchmarks/faults.py [--short] [--only undeclared|deleted|refused|recreated] [--bootstrap HOST:PORT]

Two agents read one input, and one of them is at fault:

undeclared: the decisions of one agent name a topic that is not there.
deleted: the output that one agent declares is deleted while the process runs.
refused: one agent sends a message without a key to a compacted topic, which the broker refuses for good.

Requests are sent in two halves, a second apart. Printed are the seconds from the first request to the first and the last result
of the other agent, and the dead letters by reason at the end.

recreated: the input topic is deleted and made again while a backlog of it is worked off. Printed are the seconds from the
first request in the new topic to the last answer to one of them.

A real Kafka, the demo's model on the CPU, and a process in this one.
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
from murmura.runtime.model.deltas.assembled import resolve
from murmura.runtime.model.model import Model
from murmura.runtime.observe import logs
from murmura.runtime.settings.settings import Settings
from murmura.runtime.wire.message import Publish
from murmura.schemas.deadletter import PREFIX

MODEL = Path(__file__).resolve().parents[1] / "scenarios/support/model"
FAULTS = ("undeclared", "deleted", "refused", "recreated")
BACKLOG, NEW, PARTITIONS = 3000, 300, 3


def agents(prefix: str, fault: str) -> list[Agent]:
    requests = [f"{prefix}.requests"]

    @agent(topics=requests, tasks=["queue"], output=f"{prefix}.good", name="good")
    def good(request, prediction):
        return prediction.outputs

    if fault == "deleted":

        @agent(topics=requests, tasks=["queue"], output=f"{prefix}.bad", name="bad")
        def bad(request, prediction):
            return prediction.outputs
    else:
        topic = f"{prefix}.{'compacted' if fault == 'refused' else 'nowhere'}"

        @agent(topics=requests, tasks=["queue"], name="bad")
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
        app.serve(settings, everyone, stop=stop, ready=ready.set_result, model=Model.load(resolve(MODEL), device="cpu"))
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


async def measure_recreated(bootstrap: str) -> str:
    prefix = f"faults-{uuid.uuid4().hex[:6]}"
    requests, results = f"{prefix}.requests", f"{prefix}.good"
    await make_topics(bootstrap, [requests, results, f"{prefix}.deadletters"], partitions=PARTITIONS)
    await send_all(bootstrap, requests, [f"old {number}" for number in range(BACKLOG)])
    answered: dict[str, float] = {}
    consumer = AIOKafkaConsumer(results, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    async with serving(bootstrap, prefix, agents(prefix, "deleted")[:1]):
        await note_answers(consumer, answered, BACKLOG // 10, 60)
        await delete(bootstrap, requests)
        await asyncio.sleep(1.0)
        await make_topics(bootstrap, [requests], partitions=PARTITIONS)
        before, began = len(answered), time.perf_counter()
        new = [f"new {number}" for number in range(NEW)]
        await send_all(bootstrap, requests, new)
        while not answered.keys() >= set(new) and time.perf_counter() - began < 120:
            await note_answers(consumer, answered, len(answered) + 1, 1)
    await consumer.stop()
    found = [answered[name] - began for name in new if name in answered]
    return (
        f"recreated: {len(found)} of {NEW} requests in the new topic answered, the last after {max(found, default=0):.1f} s; "
        f"{before} of {BACKLOG} of the old topic had been answered"
    )


async def send_all(bootstrap: str, topic: str, names: Sequence[str]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    await producer.start()
    for name in names:
        await producer.send(topic, json.dumps({"id": name, "text": f"where is my card, request {name}"}).encode())
    await producer.stop()


async def note_answers(consumer: AIOKafkaConsumer, answered: dict[str, float], count: int, most_s: float) -> None:
    until = time.perf_counter() + most_s
    while len(answered) < count and time.perf_counter() < until:
        for records in (await consumer.getmany(timeout_ms=100)).values():
            for record in records:
                answered.setdefault(json.loads(record.value)["request_id"], time.perf_counter())


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
            recreated = fault == "recreated"
            print(
                await (
                    measure_recreated(bootstrap)
                    if recreated
                    else measure(bootstrap, fault, 20, 20 if args.short else 90)
                ),
                flush=True,
            )


if __name__ == "__main__":
    asyncio.run(main())
