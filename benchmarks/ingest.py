"""How fast feedback becomes a data set, and how much memory that takes.

    python benchmarks/ingest.py [--short] [--records N] [--bootstrap HOST:PORT]

Two fifths of the records are requests, two fifths their results, one fifth feedback on half of the results: far more than
in life, where most results are judged by nobody. Each run is `murmura ingest` in a process of its own, as users start it.
The second run makes the data set again from its manifest and has to give the same bytes; the third reads the same number
of records with 1 % of the feedback, as in life.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml
from aiokafka import AIOKafkaProducer
from real_kafka import make_topics, real_kafka

from murmura.runtime.testing.fakes import classified, labelled
from murmura.schemas.ids import prediction_id

PARTITIONS = 4
STAMP = time.time_ns() // 1_000_000
"""Of the first records. Not long ago, or the broker deletes them as too old."""
AIM_PER_S = 10_000
LABELS = [f"intent_{n}" for n in range(60)]
Sent = tuple[str, int, bytes, bytes]
"""Topic (without the prefix), partition, key, value."""


class Run(NamedTuple):
    seconds: float
    peak_mb: float
    out: Path


def records(count: int, prefix: str, judged: float) -> Iterator[Sent]:
    """Yield so many records in all; each request with its result and, for a share, feedback."""
    pairs = round(count / (2 + judged))
    offsets = [0] * PARTITIONS
    owed = 0.0
    for n in range(pairs):
        partition, key = n % PARTITIONS, b"talk-%d" % (n // 5)
        text = f"message number {n} of somebody who wants to know where the card is that was promised last week"
        yield "classification.requests", partition, key, json.dumps({"id": f"r{n}", "text": text}).encode()
        this = prediction_id("classification", f"{prefix}.classification.requests", f"r{n}")
        yield "classification.results", partition, key, result(n, this, prefix, partition, offsets[partition])
        offsets[partition] += 1
        owed += judged
        if owed >= 1:
            owed -= 1
            yield "feedback", n // 2 % PARTITIONS, b"f%d" % n, feedback(n, this)


def result(n: int, this: str, prefix: str, partition: int, offset: int) -> bytes:
    source = {
        "topic": f"{prefix}.classification.requests",
        "partition": partition,
        "offset": offset,
        "timestamp": STAMP + n,
    }
    outputs = {
        "intent": classified(LABELS[n % 60], 0.8134567, (LABELS[(n + 1) % 60], 0.1), (LABELS[(n + 2) % 60], 0.01)),
        "topics": labelled(cards=0.91, travel=0.61),
    }
    value = {"request_id": f"r{n}", "prediction_id": this, "agent": "classification", "status": "ok"}
    value |= {"model": {"name": "desk", "version": 1}, "source": source, "outputs": outputs, "truncated": False}
    return json.dumps(value | {"metadata": {}, "time": "2026-01-05T09:40:00.123Z"}).encode()


def feedback(n: int, this: str) -> bytes:
    value = {
        "id": f"f{n}",
        "prediction_id": this,
        "agent": "classification",
        "task": "intent",
        "by": f"person {n % 50}",
    }
    value |= {"verdict": "correction", "value": LABELS[n % 59], "at": "2026-01-05T10:00:00Z", "consent": n % 20 > 0}
    return json.dumps(value).encode()


async def write(bootstrap: str, prefix: str, count: int, judged: float) -> int:
    """Fill new topics; returns how many records there are."""
    topics = ("classification.requests", "classification.results", "feedback")
    await make_topics(bootstrap, [f"{prefix}.{topic}" for topic in topics], partitions=PARTITIONS)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=50, max_batch_size=1 << 18)
    await producer.start()
    sent = 0
    stamps = dict.fromkeys(topics, STAMP)
    try:
        for topic, partition, key, value in records(count, prefix, judged):
            await producer.send(f"{prefix}.{topic}", value, key=key, partition=partition, timestamp_ms=stamps[topic])
            stamps[topic] += 1
            sent += 1
    finally:
        await producer.stop()
    return sent


def ingest(bootstrap: str, prefix: str, out: Path, *more: str | Path) -> Run:
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({"prefix": prefix, "kafka": {"bootstrap_servers": bootstrap}}))
    command = [Path(sys.executable).with_name("murmura"), "ingest", "--out", out, "--config", config, *more]
    if "--from-manifest" not in more:
        command += ["--agent", "classification"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, use = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"murmura ingest failed: {status}")
    return Run(time.perf_counter() - began, use.ru_maxrss / 1024, out)


def same(one: Path, other: Path) -> bool:
    return all(path.read_bytes() == (other / path.name).read_bytes() for path in one.iterdir())


def say(what: str, count: int, run: Run) -> float:
    per_s = count / run.seconds
    used = json.loads((run.out / "dataset.json").read_text())["counts"]["used"]
    print(
        f"{what}: {count:,} records in {run.seconds:.1f} s = {per_s:,.0f}/s; peak {run.peak_mb:.0f} MB; {used:,} used"
    )
    return per_s


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--short", action="store_true", help="60,000 records")
    parser.add_argument("--data", type=Path, help="not needed here; taken because all benchmarks are")
    args = parser.parse_args()
    count = 60_000 if args.short else args.records
    folder = Path(tempfile.mkdtemp())
    try:
        with real_kafka(args.bootstrap) as bootstrap:
            prefix = f"ingest-{uuid.uuid4().hex[:6]}"
            sent = await write(bootstrap, prefix, count, judged=0.5)
            first = ingest(bootstrap, prefix, folder / "first")
            per_s = say("half of the results judged", sent, first)
            again = ingest(bootstrap, prefix, folder / "again", "--from-manifest", first.out)
            say("the same again", sent, again)
            print("  the same bytes:", "yes" if same(first.out, again.out) else "NO")
            few = f"ingest-{uuid.uuid4().hex[:6]}"
            sent = await write(bootstrap, few, count, judged=0.01)
            say("1 % judged", sent, ingest(bootstrap, few, folder / "few"))
            print(f"ratio to the aim of {AIM_PER_S:,} records/s, start of the process counted: {per_s / AIM_PER_S:.1f}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())
