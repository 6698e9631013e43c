"""Peak memory of `murmura serve` with MiniLM under load: python benchmarks/memory.py [--short] [--delta FOLDER].

Starts the command as users do, on a real Kafka, answers a backlog, and reads the process's high-water mark.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from minilm import FOUR_TASKS, NAME, manifest, tokenizer
from minilm import graph as onnx_file
from pump import load
from real_kafka import make_topics, real_kafka

from murmura.runtime.model.folders.folder import write_manifest
from murmura.runtime.model.model import Model
from murmura.runtime.model.reference_sample import make_reference

PREFIX = "memory"
SAMPLE = ("where is my card? i ordered it two weeks ago", "thanks", "transfer 20 dollars to anna on monday at noon")


def model_folder(folder: Path, tasks: int = len(FOUR_TASKS)) -> Path:
    """Write a model folder of the first `tasks` heads that may be released: with its reference sample."""
    (folder / "model.ragged.onnx").write_bytes(onnx_file(tasks).read_bytes())
    (folder / "tokenizer.json").write_text(tokenizer().to_str())
    roles = {"model.ragged.onnx": "graph:ragged", "tokenizer.json": "tokenizer"}
    made = manifest().model_copy(update={"tasks": list(FOUR_TASKS[:tasks])})
    write_manifest(folder, made, roles)
    sample = make_reference(Model.load(folder, device="cpu", verify=False), SAMPLE)
    (folder / "reference.json").write_text(json.dumps(sample))
    write_manifest(folder, made, roles | {"reference.json": "reference"})
    return folder


async def answered(bootstrap: str, topic: str, count: int) -> None:
    """Return when `topic` has so many records."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    seen = 0
    try:
        async with asyncio.timeout(300):
            while seen < count:
                seen += sum(len(batch) for batch in (await consumer.getmany(timeout_ms=500)).values())
    finally:
        await consumer.stop()


def high_water_mb(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


async def measure(bootstrap: str, folder: Path, data: Path, records: int, cache: Path) -> float:
    prefix = f"{PREFIX}-{uuid.uuid4().hex[:6]}"
    topics = [f"{prefix}.{name}" for name in ("classification.requests", "classification.results", "deadletters")]
    await make_topics(bootstrap, topics, partitions=4)
    await asyncio.to_thread(load(bootstrap, topics[0], records, 0, data).communicate)
    command = [Path(sys.executable).with_name("murmura"), "serve", "classification", "--model", folder]
    environment = {
        **os.environ,
        "MURMURA_PREFIX": prefix,
        "MURMURA_HTTP": "127.0.0.1:0",
        "MURMURA_CACHE": str(cache),
        "MURMURA_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
    }
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await answered(bootstrap, topics[1], records)
        peak = high_water_mb(process.pid)
        print(f"  after {records:,} records: {peak:.0f} MB", time.strftime("%H:%M:%S"))
        return peak
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--delta", type=Path, help="a delta folder instead, assembled on first use")
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, real_kafka(args.bootstrap) as bootstrap:
        folder = args.delta or model_folder(Path(scratch))
        peak = await measure(bootstrap, folder, args.data, 500 if args.short else 5000, Path(scratch) / "cache")
        print(f"peak memory of `murmura serve`, {args.delta or NAME}: {peak:.0f} MB (aim 500)")


if __name__ == "__main__":
    asyncio.run(main())
