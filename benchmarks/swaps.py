"""Exchanging models under half load: 20 releases of which 5 are bad. python benchmarks/swaps.py [--short].

Counts what was lost and answered twice, compares p50 and p99 while a release is staged and swapped with those before, and
gives the slope of the process's memory over the swaps with its standard error. The bad ones: a damaged file, another
digest than was released, NaN, a reference sample that does not come out, a task that the agent needs and that is not
there. Model: MiniLM-L6 with four heads of random weights.
"""

import argparse
import asyncio
import itertools
import json
import os
import shutil
import signal
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
from minilm import ENCODER, FOUR_TASKS, NAME, weights
from real_kafka import make_topics, real_kafka

from murmura.runtime.model.folders.folder import read_manifest, write_manifest
from murmura.runtime.model.graph.build import build_graph
from murmura.runtime.release.states import publish_state, read_states
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import KafkaSettings
from murmura.schemas.release import released

MODEL = "minilm-bench"
NEEDED = [task.name for task in FOUR_TASKS[:3]]
"""What the agent declares, so that a version without one of them is refused."""


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

    async def settled(self) -> None:
        """Return when what has piled up since the start is answered; what is measured before says nothing of swaps."""
        try:
            async with asyncio.timeout(60):
                while len(self.sent) - len(self.answers) > self.per_s / 4:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise RuntimeError(f"{self.per_s:.0f} requests/s are more than it answers here: lower --rate") from None

    def took_ms(self, *windows: tuple[float, float]) -> list[float]:
        """Milliseconds of the answers to what was sent in the windows."""
        return [1000 * took for at, took in self.took if any(start <= at < end for start, end in windows)]


def p50_p99(took: list[float]) -> tuple[float, float]:
    return (float(np.percentile(took, 50)), float(np.percentile(took, 99))) if took else (float("nan"), float("nan"))


class Swapping:
    """A store with good and bad versions, and their releases."""

    def __init__(self, bootstrap: str, prefix: str, scratch: Path) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=bootstrap)
        self.prefix, self.scratch = prefix, scratch
        self.store = ModelStore(str(scratch / "store"))
        (scratch / "model").mkdir()
        self.folder = model_folder(scratch / "model")
        self._kinds = [self.damaged, self.wrong_digest, self.not_finite, self.not_reproduced, self.lacks_task]
        self._bad: list[tuple[int, str]] = []
        self._turns = itertools.count()

    def good(self) -> tuple[int, str]:
        return self._pushed(self.folder)

    def a_bad_one(self) -> tuple[int, str]:
        """One of each kind in turn, and then the same ones again."""
        turn = next(self._turns)
        if turn < len(self._kinds):
            self._bad.append(self._kinds[turn]())
        return self._bad[turn % len(self._kinds)]

    def damaged(self) -> tuple[int, str]:
        """A file in the store is not what was pushed."""
        version, digest = self.good()
        with (self.scratch / "store" / MODEL / str(version) / "model.ragged.onnx").open("r+b") as file:
            file.seek(-1000, os.SEEK_END)
            file.write(bytes(1000))
        return version, digest

    def wrong_digest(self) -> tuple[int, str]:
        """Something else was released than what is there."""
        return self.good()[0], "0" * 64

    def not_finite(self) -> tuple[int, str]:
        """A head of NaN."""
        spoiled = {**weights(), "heads.intent.bias": np.full(len(FOUR_TASKS[0].labels), np.nan, np.float32)}
        folder = self._copy("not-finite")
        (folder / "model.ragged.onnx").write_bytes(build_graph(ENCODER, FOUR_TASKS, spoiled))
        return self._pushed(_resigned(folder))

    def not_reproduced(self) -> tuple[int, str]:
        """The sample's answers are another model's."""
        folder = self._copy("not-reproduced")
        sample = json.loads((folder / "reference.json").read_text())
        sample["outputs"]["intent"] = [row[::-1] for row in sample["outputs"]["intent"]]
        (folder / "reference.json").write_text(json.dumps(sample))
        return self._pushed(_resigned(folder))

    def lacks_task(self) -> tuple[int, str]:
        """Two heads, of the three that the agent declares."""
        (folder := self.scratch / "lacks-task").mkdir()
        return self._pushed(model_folder(folder, tasks=2))

    def _copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.folder, self.scratch / name))

    def _pushed(self, folder: Path) -> tuple[int, str]:
        version = self.store.push(folder)
        return version, self.store.digest(MODEL, version)

    async def release(self, version: int, digest: str) -> None:
        topic = f"{self.prefix}.models"
        state = (await read_states(self.kafka, topic)).get(MODEL)
        new = released(state, MODEL, version, digest, by="benchmark", why="benchmark", at=datetime.now(UTC))
        await publish_state(self.kafka, topic, new)

    async def events(self, consumer: AIOKafkaConsumer) -> dict[str, object]:
        async with asyncio.timeout(90):
            event: dict[str, object] = json.loads((await consumer.getone()).value)
            return event


def rss_mb(pid: int) -> float:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _resigned(folder: Path) -> Path:
    manifest = read_manifest(folder)
    write_manifest(folder, manifest, {file.path: file.role for file in manifest.files})
    return folder


def start_serving(bootstrap: str, prefix: str, scratch: Path) -> "subprocess.Popen[bytes]":
    config = scratch / "murmura.yaml"
    config.write_text(f"agents: {{classification: {{tasks: [{', '.join(NEEDED)}]}}}}\n")
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
    command = [Path(sys.executable).with_name("murmura"), "serve", "classification", "--config", config]
    with (scratch / "serve.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def print_report(
    traffic: Traffic, before: list[float], during: list[float], memory: list[float], kinds: Counter[str]
) -> None:
    lost = len(traffic.sent) - len(traffic.answers)
    twice = sum(count > 1 for count in traffic.answers.values())
    (p50, p99), (p50_during, p99_during) = p50_p99(before), p50_p99(during)
    print(f"{sum(kinds.values())} releases at {traffic.per_s:.0f} requests/s, {NAME}: {dict(kinds)}")
    print(f"  {len(traffic.sent)} requests, {lost} lost, {twice} answered twice")
    print(f"  before a swap p50 {p50:.0f} ms, p99 {p99:.0f} ms ({len(before)} requests)")
    print(f"  during one    p50 {p50_during:.0f} ms, p99 {p99_during:.0f} ms ({len(during)} requests)")
    print(f"  p99 during a swap is {p99_during / p99:.2f} times the p99 before (aim: below 2)")
    settled = memory[3:]
    if len(settled) > 2:
        fit = slope_and_error(settled)
        print(f"  memory {fit[0]:+.2f} +- {fit[1]:.2f} MB a swap over the last {len(settled)} (aim: 0 within noise)")


def slope_and_error(values: list[float]) -> tuple[float, float]:
    """Slope and its standard error, by least squares on 0, 1, 2, ..."""
    x = np.arange(len(values), dtype=float)
    slope, intercept = np.polyfit(x, values, 1)
    left = np.asarray(values) - (slope * x + intercept)
    return float(slope), float(np.sqrt((left @ left) / (len(x) - 2) / ((x - x.mean()) @ (x - x.mean()))))


async def run(bootstrap: str, data: Path, swaps: int, bad: int, scratch: Path, per_s: float) -> None:
    prefix = f"swaps-{uuid.uuid4().hex[:6]}"
    many = [f"{prefix}.{name}" for name in ("classification.requests", "classification.results", "deadletters")]
    await make_topics(bootstrap, many, partitions=4)
    await make_topics(bootstrap, [f"{prefix}.models", f"{prefix}.events"], partitions=1)
    swapping = Swapping(bootstrap, prefix, scratch)
    await swapping.release(*swapping.good())
    process = start_serving(bootstrap, prefix, scratch)
    traffic = Traffic(bootstrap, prefix, utterances(data), per_s)
    events = AIOKafkaConsumer(f"{prefix}.events", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await events.start()
    tasks = [asyncio.create_task(traffic.send()), asyncio.create_task(traffic.receive())]
    try:
        while len(traffic.took) < per_s:
            if process.poll() is not None:
                raise RuntimeError((scratch / "serve.log").read_text())
            await asyncio.sleep(0.1)
        await traffic.settled()
        quiet, kinds, memory = time.monotonic(), Counter[str](), []
        await asyncio.sleep(8)
        before, windows = [(quiet, time.monotonic())], []
        for number in range(swaps):
            # Made before the clock runs: building a bad graph is no part of a swap.
            is_bad = number % (swaps // bad) == 1
            made = await asyncio.to_thread(swapping.a_bad_one if is_bad else swapping.good)
            await asyncio.sleep(1.0)
            began = time.monotonic()
            await swapping.release(*made)
            event = await swapping.events(events)
            kinds[str(event["reason"] or event["event"])] += 1
            await asyncio.sleep(0.5)
            windows.append((began, time.monotonic()))
            await asyncio.sleep(0.5)
            memory.append(rss_mb(process.pid))
            p50, p99 = p50_p99(traffic.took_ms(windows[-1]))
            what = event["reason"] or "swapped"
            print(f"  {number + 1}: {what}, p50 {p50:.0f} ms, p99 {p99:.0f} ms, {memory[-1]:.0f} MB", flush=True)
        tasks[0].cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                while len(traffic.answers) < len(traffic.sent):
                    await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)  # for what comes twice
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await events.stop()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    print_report(traffic, traffic.took_ms(*before), traffic.took_ms(*windows), memory, kinds)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rate", type=float, default=200, help="requests a second; about half of what two cores take")
    parser.add_argument("--swaps", type=int, default=20, help="of which a quarter are bad")
    parser.add_argument("--short", action="store_true", help="10, of which half are bad")
    args = parser.parse_args()
    swaps, bad = (10, 5) if args.short else (args.swaps, max(1, args.swaps // 4))
    with tempfile.TemporaryDirectory() as scratch, real_kafka(args.bootstrap) as bootstrap:
        await run(bootstrap, args.data, swaps, bad, Path(scratch), args.rate)


if __name__ == "__main__":
    asyncio.run(main())
