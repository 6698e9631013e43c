"""The whole way over a real Kafka on a simulated accelerator: how much one process can carry, and what it costs.

    python benchmarks/pump.py [--short] [--bootstrap HOST:PORT] [--data ../shared/data]

The accelerator takes two runs at once, each 2 ms + 30 us a row, at most 256 rows. Everything else is real: the broker,
MiniLM's tokenizer with exact offsets, four heads' decoding, results with all their headers, metrics, commits.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from load import utterances
from minilm import minilm_model, simulated_model
from real_kafka import make_topics, real_kafka

from murmura.agents.classification import agent as classification
from murmura.runtime import serve as app
from murmura.runtime.model.model import Model
from murmura.runtime.settings.settings import Settings

HERE = Path(__file__).parent


@dataclass
class Carried:
    per_s: float
    cpu_us: float


class Worker:
    """One serving process's work, in this process, with counters read from its own metrics."""

    def __init__(self, serving: app.Serving, group: str) -> None:
        self.metrics = serving.metrics
        self.group = group
        self.token_budget = serving.engine.token_budget

    def answered(self) -> int:
        return self.metrics.end_to_end.totals(("classification",))[0]

    async def carry(self, first: int, last: int) -> Carried:
        """Measure between the `first` and the `last` answered record."""
        await self._until(first)
        began, cpu, count = time.perf_counter(), time.process_time(), self.answered()
        await self._until(last)
        records = self.answered() - count
        return Carried(records / (time.perf_counter() - began), (time.process_time() - cpu) / records * 1e6)

    async def _until(self, count: int) -> None:
        deadline = time.monotonic() + 120
        while self.answered() < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.answered()} of {count} answered")
            await asyncio.sleep(0.01)


@asynccontextmanager
async def worker(bootstrap: str, model: Model, *topics: str, cores: int = 2) -> AsyncIterator[Worker]:
    """Serve each topic into `<topic>.out`; the first one's agent is called classification."""
    settings = Settings(
        app=f"bench-{uuid.uuid4().hex[:8]}",
        prefix=topics[0],
        kafka={"bootstrap_servers": bootstrap},
        model={"cores": cores},
        http="127.0.0.1:0",
    )
    agents = [
        replace(classification, name=name, topics=(topic,), output=f"{topic}.out", tasks=("intent",))
        for topic, name in zip(topics, ("classification", "light"), strict=False)
    ]
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(app.serve(settings, agents, stop=stop, ready=ready.set_result, model=model))
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield Worker(ready.result(), settings.group)
    finally:
        stop.set()
        await task


def load(bootstrap: str, topic: str, records: int, rate: float, data: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "load.py"), bootstrap, topic, str(records), str(rate), str(data)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def backlog(bootstrap: str, data: Path, records: int) -> Carried:
    """Carry a preloaded backlog."""
    topic = f"backlog-{uuid.uuid4().hex[:8]}"
    await make_topics(bootstrap, [topic, f"{topic}.out", f"{topic}.deadletters"], partitions=4)
    await asyncio.to_thread(load(bootstrap, topic, records, 0, data).communicate)
    async with worker(bootstrap, simulated_model(), topic) as at_work:
        return await at_work.carry(records // 6, records)


async def live(bootstrap: str, data: Path, seconds: int, rate: int) -> tuple[Carried, int]:
    """Carry a steady stream; returns also how many records were left when the last was sent."""
    topic = f"live-{uuid.uuid4().hex[:8]}"
    await make_topics(bootstrap, [topic, f"{topic}.out", f"{topic}.deadletters"], partitions=4)
    async with worker(bootstrap, simulated_model(), topic) as at_work:
        generator = load(bootstrap, topic, seconds * rate, rate, data)
        carried = await at_work.carry(2 * rate, (seconds - 1) * rate)
        await asyncio.to_thread(generator.wait)
        left = seconds * rate - at_work.answered()
        await at_work._until(seconds * rate)
        return carried, left


async def light_beside_heavy(bootstrap: str, data: Path, model: Model, waiting: int, seconds: float) -> list[float]:
    """Send one record each 100 ms to a light topic while `waiting` wait on another; returns the light ones' ms."""
    heavy = f"heavy-{uuid.uuid4().hex[:8]}"
    light = f"{heavy}.light"
    await make_topics(bootstrap, [heavy, light, f"{heavy}.out", f"{light}.out", f"{heavy}.deadletters"], partitions=4)
    await asyncio.to_thread(load(bootstrap, heavy, waiting, 0, data).communicate)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    consumer = AIOKafkaConsumer(f"{light}.out", bootstrap_servers=bootstrap, fetch_max_wait_ms=20)
    await producer.start()
    await consumer.start()
    texts = utterances(data)
    sent: dict[str, float] = {}
    took: list[float] = []

    async def collect() -> None:
        async for record in consumer:
            began = sent.pop(dict(record.headers)["ce_subject"].decode(), None)
            if began is not None:
                took.append((time.perf_counter() - began) * 1000)

    collector = asyncio.create_task(collect())
    try:
        async with worker(bootstrap, model, heavy, light) as at_work:
            await asyncio.sleep(1.0)
            end = time.perf_counter() + seconds
            # Only while others wait: behind the backlog it would be the latency of an idle process.
            while time.perf_counter() < end and at_work.answered() < 0.95 * waiting:
                name = uuid.uuid4().hex
                sent[name] = time.perf_counter()
                value = json.dumps({"text": texts[len(took) % len(texts)], "id": name}).encode()
                await producer.send(light, value)
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)
    finally:
        collector.cancel()
        await consumer.stop()
        await producer.stop()
    return took


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", choices=["backlog", "live", "light"])
    args = parser.parse_args()
    rounds, records, seconds = (1, 60_000, 6) if args.short else (3, 200_000, 20)
    with real_kafka(args.bootstrap) as bootstrap:
        if args.only in {None, "backlog"}:
            runs = [await backlog(bootstrap, args.data, records) for _ in range(rounds)]
            print(
                f"backlog of {records:,} on the simulated accelerator: "
                f"{statistics.median(r.per_s for r in runs):,.0f} records/s (aim 18,000), "
                f"{statistics.median(r.cpu_us for r in runs):.1f} us of CPU a record, median of {rounds}"
            )
        if args.only in {None, "live"}:
            lives = [await live(bootstrap, args.data, seconds, 12_000) for _ in range(rounds)]
            print(
                f"live at 12,000/s: {statistics.median(r.per_s for r, _ in lives):,.0f} records/s, "
                f"{statistics.median(r.cpu_us for r, _ in lives):.1f} us of CPU a record (aim 60), "
                f"{max(left for _, left in lives)} left when the last was sent"
            )
        if args.only in {None, "light"}:
            # The simulated accelerator would be through with 20,000 in a second: ten times as many wait for it.
            cases = [
                ("simulated accelerator", simulated_model(), 40, 200_000),
                ("MiniLM on this CPU", minilm_model(), 120, 20_000),
            ]
            for name, model, aim, waiting in cases:
                took = await light_beside_heavy(bootstrap, args.data, model, waiting, min(seconds, 10))
                took.sort()
                print(
                    f"a light topic beside {waiting:,} waiting records, {name}: p50 {statistics.median(took):.0f} ms "
                    f"(aim {aim}), p95 {took[int(0.95 * len(took))]:.0f} ms, {len(took)} records"
                )


if __name__ == "__main__":
    asyncio.run(main())
