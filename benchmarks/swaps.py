"""Exchanging models under half load: 20 releases of which 5 are bad. python benchmarks/swaps.py [--short].

Counts what was lost and answered twice, compares p99 while a release is staged and swapped with p99 before, and gives
the slope of the process's memory over the swaps. Model: MiniLM-L6 with four heads of random weights.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from load import utterances
from memory import model_folder
from minilm import NAME
from real_kafka import make_topics, real_kafka

from murmura.runtime.model_store import ModelStore
from murmura.runtime.releases import publish_state, read_states
from murmura.runtime.settings import KafkaSettings
from murmura.schemas.release import released

MODEL = "minilm-bench"


class Traffic:
    """Requests at a steady rate, and what came of each."""

    def __init__(self, bootstrap: str, prefix: str, texts: list[str], per_s: float) -> None:
        self.bootstrap, self.prefix, self.texts, self.per_s = bootstrap, prefix, texts, per_s
        self.sent: dict[str, float] = {}
        self.took: list[tuple[float, float]] = []  # sent at, seconds
        self.answers: Counter[str] = Counter()

    async def send(self) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", enable_idempotence=True)
        await producer.start()
        try:
            began, number = time.monotonic(), 0
            while True:
                while number < (time.monotonic() - began) * self.per_s:
                    name = f"r{number}"
                    self.sent[name] = time.monotonic()
                    value = json.dumps({"id": name, "text": self.texts[number % len(self.texts)]}).encode()
                    await producer.send(f"{self.prefix}.classification.requests", value)
                    number += 1
                await asyncio.sleep(0.005)
        finally:
            await producer.stop()

    async def receive(self) -> None:
        consumer = AIOKafkaConsumer(
            f"{self.prefix}.classification.results", bootstrap_servers=self.bootstrap, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            async for record in consumer:
                name = dict(record.headers)["ce_subject"].decode()
                if not self.answers[name]:
                    self.took.append((self.sent[name], time.monotonic() - self.sent[name]))
                self.answers[name] += 1
        finally:
            await consumer.stop()

    def p99_ms(self, start: float, end: float) -> float:
        took = [seconds for at, seconds in self.took if start <= at < end]
        return float(np.percentile(took, 99)) * 1000 if took else float("nan")


class Swapping:
    """A store with good and bad versions, and their releases."""

    def __init__(self, bootstrap: str, prefix: str, scratch: Path) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=bootstrap)
        self.prefix, self.scratch = prefix, scratch
        self.store = ModelStore(str(scratch / "store"))
        (scratch / "model").mkdir()
        self.folder = model_folder(scratch / "model")

    def push(self) -> int:
        return self.store.push(self.folder)

    def damage(self, version: int) -> None:
        graph = self.scratch / "store" / MODEL / str(version) / "model.ragged.onnx"
        graph.chmod(0o644)
        with graph.open("r+b") as file:
            file.seek(-1000, os.SEEK_END)
            file.write(bytes(1000))

    async def release(self, version: int) -> None:
        topic = f"{self.prefix}.models"
        state = (await read_states(self.kafka, topic)).get(MODEL)
        digest = self.store.digest(MODEL, version)
        new = released(state, MODEL, version, digest, by="benchmark", why="benchmark", at=datetime.now(UTC))
        await publish_state(self.kafka, topic, new)

    async def events(self, consumer: AIOKafkaConsumer) -> dict[str, object]:
        async with asyncio.timeout(90):
            event: dict[str, object] = json.loads((await consumer.getone()).value)
            return event


def rss_mb(pid: int) -> float:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def run(bootstrap: str, data: Path, swaps: int, bad: int, scratch: Path, per_s: float) -> None:
    prefix = f"swaps-{uuid.uuid4().hex[:6]}"
    many = [f"{prefix}.{name}" for name in ("classification.requests", "classification.results", "deadletters")]
    await make_topics(bootstrap, many, partitions=4)
    await make_topics(bootstrap, [f"{prefix}.models", f"{prefix}.events"], partitions=1)
    swapping = Swapping(bootstrap, prefix, scratch)
    await swapping.release(swapping.push())
    environment = {
        **os.environ,
        "MURMURA_PREFIX": prefix,
        "MURMURA_APP": prefix,
        "MURMURA_HTTP": "127.0.0.1:0",
        "MURMURA_CACHE": str(scratch / "cache"),
        "MURMURA_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "MURMURA_MODEL__STORE": str(scratch / "store"),
        "MURMURA_MODEL__NAME": MODEL,
    }
    command = [Path(sys.executable).with_name("murmura"), "serve", "classification"]
    log = (scratch / "serve.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    traffic = Traffic(bootstrap, prefix, utterances(data), per_s)
    events = AIOKafkaConsumer(f"{prefix}.events", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await events.start()
    tasks = [asyncio.create_task(traffic.send()), asyncio.create_task(traffic.receive())]
    try:
        while len(traffic.took) < per_s:
            if process.poll() is not None:
                raise RuntimeError((scratch / "serve.log").read_text())
            await asyncio.sleep(0.1)
        quiet, memory, during, kinds = time.monotonic(), [], [], Counter[object]()
        await asyncio.sleep(8)
        before = traffic.p99_ms(quiet, time.monotonic())
        for number in range(swaps):
            version = swapping.push()
            if number % (swaps // bad) == 1:
                swapping.damage(version)
            began = time.monotonic()
            with suppress(Exception):
                await swapping.release(version)
            kinds[(await swapping.events(events))["event"]] += 1
            await asyncio.sleep(1.0)
            during.append(traffic.p99_ms(began, time.monotonic() - 0.5))
            memory.append(rss_mb(process.pid))
            print(f"  {number + 1}: p99 {during[-1]:.0f} ms, {memory[-1]:.0f} MB", flush=True)
        tasks[0].cancel()
        async with asyncio.timeout(30):
            while len(traffic.took) < len(traffic.sent):
                await asyncio.sleep(0.1)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await events.stop()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    lost = len(traffic.sent) - len(traffic.answers)
    twice = sum(count > 1 for count in traffic.answers.values())
    settled = memory[3:]
    slope = statistics.linear_regression(range(len(settled)), settled).slope if len(settled) > 1 else 0.0
    print(
        f"{swaps} releases ({dict(kinds)}) at {per_s:.0f} requests/s, {NAME}: {lost} lost, {twice} answered twice; "
        f"p99 before {before:.0f} ms, during a swap {statistics.median(during):.0f} ms "
        f"({statistics.median(during) / before:.2f} times, aim 2); memory {slope:+.2f} MB a swap over the last {len(settled)}"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rate", type=float, default=200, help="requests a second; about half of what two cores take")
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    swaps, bad = (4, 1) if args.short else (20, 5)
    with tempfile.TemporaryDirectory() as scratch, real_kafka(args.bootstrap) as bootstrap:
        await run(bootstrap, args.data, swaps, bad, Path(scratch), args.rate)


if __name__ == "__main__":
    asyncio.run(main())
