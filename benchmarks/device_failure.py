"""A device that fails under load, over a real Kafka: what becomes of the records, and how soon they are answered.

    python benchmarks/device_failure.py [--short] [--bootstrap HOST:PORT] [--data ../shared/data]

A steady stream of 10,000 records a second goes to a simulated accelerator, which fails for 20 s as one does that is out
of memory: every run raises, the check of the device too. Then the backlog is worked off. All else is real, see `pump.py`.
"""

import argparse
import asyncio
import time
import uuid
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from load import utterances
from minilm import simulated_model
from pump import load, worker
from real_kafka import make_topics, real_kafka

from murmura.runtime.model.device_faults import model_error

RATE = 10_000
PARTITIONS = 4


class FailingRunner:
    """A runner whose runs fail while `broken`."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.device = runner.device
        self.broken = False
        self.failed = 0

    def run(self, feeds: Any) -> Any:
        if self.broken:
            self.failed += 1
            raise model_error(RuntimeError("CUDA failure 2: out of memory ; GPU=0"), "onnxruntime")
        return self._runner.run(feeds)

    def terminate(self, thread: int | None = None) -> None:
        self._runner.terminate(thread)


async def counts(bootstrap: str, topic: str, group: str | None = None) -> int:
    """Return the records in a topic, or what a group has committed of it."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        if group is not None:
            return sum([await consumer.committed(partition) or 0 for partition in partitions])
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()


async def fail_under_load(bootstrap: str, data: Path, fails_s: float, rate: int) -> str:
    """Return a sentence of what was measured."""
    before_s, after_s = 5.0, 5.0
    records = int((before_s + fails_s + after_s) * rate)
    topic = f"broken-{uuid.uuid4().hex[:8]}"
    await make_topics(bootstrap, [topic, f"{topic}.out", f"{topic}.deadletters"], partitions=PARTITIONS)
    model = simulated_model()
    model.runner = device = FailingRunner(model.runner)
    async with worker(bootstrap, model, topic) as at_work:
        generator = load(bootstrap, topic, records, rate, data)
        while at_work.answered() < before_s * rate:
            await asyncio.sleep(0.01)
        device.broken = True
        await asyncio.sleep(fails_s)
        answered, runs = at_work.answered(), device.failed
        device.broken = False
        works_again = time.perf_counter()
        while at_work.answered() == answered:
            await asyncio.sleep(0.005)
        first_s = time.perf_counter() - works_again
        await asyncio.to_thread(generator.wait)
        await at_work._until(records)
        done_s = time.perf_counter() - works_again
        await asyncio.sleep(0.5)
        results, dead = await counts(bootstrap, f"{topic}.out"), await counts(bootstrap, f"{topic}.deadletters")
        group = at_work.group
        committed = await counts(bootstrap, topic, group)
    return (
        f"a device that fails for {fails_s:g} s at {rate:,} records/s: {records:,} requests, {results:,} results, {dead} dead "
        f"letters, {committed:,} committed; {runs} runs and probes while it failed; the first answer {first_s:.1f} s after "
        f"it works again, the backlog gone after {done_s:.1f} s"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--short", action="store_true", help="5 s at 2,000 records/s")
    args = parser.parse_args()
    utterances(args.data)
    fails_s, rate = (5.0, 2_000) if args.short else (20.0, RATE)
    with real_kafka(args.bootstrap) as bootstrap:
        print(await fail_under_load(bootstrap, args.data, fails_s, rate))


if __name__ == "__main__":
    asyncio.run(main())
