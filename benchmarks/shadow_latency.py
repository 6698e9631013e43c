"""What a version that is only compared costs those that wait for answers: latency with a shadow and without one, by turns.

    python benchmarks/shadow_latency.py [--pairs 6] [--seconds 30] [--rate 50] [--share 99%] [--model FOLDER] [--bootstrap HOST:PORT]

One `murmura serve` classifies messages from a real Kafka at a moderate rate; `murmura models shadow` and `stop` switch the comparison on and
off, and what is sent in a turn counts from two seconds after the switch took hold. Latency is from the request's timestamp to the
result's, in whole milliseconds. The model is the tests' tiny one twice, unless one is given. Which comes first changes from pair to pair.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from aiokafka import AIOKafkaProducer
from real_kafka import make_topics, real_kafka
from serving_members import Members

from murmura.runtime.kafka.groupless_reader import open_reader
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.release.states import publish_state
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import KafkaSettings
from murmura.scenarios.support.place import ROWS
from murmura.schemas.release import released

ROOT = Path(__file__).resolve().parents[1]
SETTLE_S = 2.0
START_S = 120.0


class Trial:
    """One process, its messages and the switch."""

    def __init__(self, bootstrap: str, folder: Path, model: Path, rate: float, share: str) -> None:
        self._bootstrap, self._folder, self._rate, self._share = bootstrap, folder, rate, share
        self._model, self._name = model, read_manifest(model).name
        self._prefix = f"shadow-{uuid.uuid4().hex[:6]}"
        self._kafka = KafkaSettings(bootstrap_servers=bootstrap)
        self.config, self._log = folder / "serve.yaml", folder / "serve-1.log"
        lines = (ROWS / "report-messages.jsonl").read_text(encoding="utf-8").splitlines()
        self._texts = [json.loads(line)["text"] for line in lines]
        self._sent = 0
        self._latencies: dict[str, float] = {}

    async def prepare(self) -> None:
        """Make topics, a store with the model twice, and the settings' file; release the first version."""
        store = ModelStore(str(self._folder / "store"))
        many = [f"{self._prefix}.{name}" for name in ("requests", "classification.results", "deadletters", "retries")]
        await make_topics(self._bootstrap, many, partitions=4)
        one = [f"{self._prefix}.{name}" for name in ("models", "events", "reviews", "shadow", "experiments")]
        await make_topics(self._bootstrap, one, partitions=1)
        for _ in range(2):
            store.push(self._model)
        first = released(None, self._name, 1, store.digest(self._name, 1), by="benchmark", why="", at=datetime.now(UTC))
        await publish_state(self._kafka, f"{self._prefix}.models", first)
        settings = {
            "app": self._prefix,
            "prefix": self._prefix,
            "kafka": {"bootstrap_servers": self._bootstrap},
            "model": {"store": store.address, "name": self._name, "device": "cpu", "cores": 1},
            "agents": {"classification": {"topics": [f"{self._prefix}.requests"]}},
            "http": "127.0.0.1:0",
            "log": {"format": "json"},
        }
        self.config.write_text(yaml.safe_dump(settings))

    async def wait_for(self, event: str, times: int) -> None:
        """Wait until a line of the process's log has come so many times."""
        end = time.monotonic() + START_S
        while self._log.read_text().count(f'"event": "{event}"') < times:
            if time.monotonic() > end:
                raise RuntimeError(f"no {event!r} within {START_S:g} s: {self._log.read_text()[-3000:]}")
            await asyncio.sleep(0.1)

    async def switch(self, *, on: bool, times: int) -> None:
        """Start or stop the comparison, for the so-manieth time."""
        command = ["shadow", self._name, "2", "--share", self._share] if on else ["stop", self._name]
        done = await asyncio.to_thread(
            subprocess.run,
            [Path(sys.executable).with_name("murmura"), "models", *command, "--config", self.config],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        await self.wait_for("candidate loaded" if on else "candidate dropped", times)
        await asyncio.sleep(SETTLE_S)

    async def read(self) -> None:
        """Note latencies until cancelled."""
        async with open_reader(self._kafka, [f"{self._prefix}.classification.results"], from_beginning=True) as reader:
            while True:
                for records in (await reader.getmany(timeout_ms=500)).values():
                    for record in records:
                        value = json.loads(record.value)
                        self._latencies[value["request_id"]] = record.timestamp - value["source"]["timestamp"]

    async def measure(self, producer: AIOKafkaProducer, seconds: float) -> list[float]:
        """Send messages for so many seconds; return the latencies of their results, ms."""
        sent, first = list[str](), time.monotonic()
        for number in range(int(seconds * self._rate)):
            await asyncio.sleep(max(first + number / self._rate - time.monotonic(), 0.0))
            sent.append(f"r{self._sent}")
            self._sent += 1
            value = json.dumps({"id": sent[-1], "text": self._texts[self._sent % len(self._texts)]}).encode()
            await producer.send(f"{self._prefix}.requests", value, key=sent[-1].encode())
        end = time.monotonic() + 60
        while any(each not in self._latencies for each in sent):
            if time.monotonic() > end:
                raise RuntimeError("not every message was answered within a minute")
            await asyncio.sleep(0.2)
        return [self._latencies[each] for each in sent]

    async def count_compared(self) -> int:
        """Return how many records were compared, by the counts that the process published."""
        from murmura.schemas.shadow import ShadowCounts, ShadowRecord

        async with open_reader(self._kafka, [f"{self._prefix}.shadow"], from_beginning=True) as reader:
            ends = await reader.end_offsets(reader.assignment())
            found = [
                ShadowRecord.model_validate_json((await reader.getone()).value).root for _ in range(sum(ends.values()))
            ]
        return sum(each.compared for each in found if isinstance(each, ShadowCounts))


async def run(bootstrap: str, folder: Path, model: Path, chosen: argparse.Namespace) -> None:
    trial = Trial(bootstrap, folder, model, chosen.rate, chosen.share)
    await trial.prepare()
    members = Members(trial.config, folder)
    figures: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    is_on, ons, offs = False, 0, 0
    try:
        members.start()
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            reading = asyncio.create_task(trial.read())
            await trial.measure(producer, 5.0)
            for pair in range(chosen.pairs):
                for on in (False, True) if pair % 2 == 0 else (True, False):
                    if on != is_on:
                        is_on, ons, offs = on, ons + on, offs + (not on)
                        await trial.switch(on=on, times=ons if on else offs)
                    p50, p99 = np.quantile(await trial.measure(producer, chosen.seconds), [0.5, 0.99])
                    figures[on].append((float(p50), float(p99)))
                    members.check()
                    print(
                        f"pair {pair + 1}, {'with' if on else 'without'}: median {p50:.1f} ms, 99 % {p99:.1f} ms",
                        flush=True,
                    )
            reading.cancel()
        members.stop()
    finally:
        members.end()
    for on, turns in figures.items():
        p50, p99 = (statistics.median(turn[place] for turn in turns) for place in (0, 1))
        print(
            f"{'with' if on else 'without'} a shadow, median of {len(turns)} turns: median {p50:.1f} ms, 99 % {p99:.1f} ms"
        )
    ratios = [shadowed[1] / bare[1] for bare, shadowed in zip(figures[False], figures[True], strict=True)]
    print(
        f"99 % with / without, by pair: {', '.join(f'{each:.2f}' for each in ratios)}, median {statistics.median(ratios):.2f}"
    )
    print(
        f"{await trial.count_compared():,} records compared, of {int(chosen.pairs * chosen.seconds * chosen.rate):,} sent meanwhile"
    )


def parse(arguments: list[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a model folder; default: the tests' tiny model")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=30.0, help="of a turn")
    parser.add_argument("--rate", type=float, default=50.0, help="messages a second")
    parser.add_argument("--share", default="99%", help="of the requests that are compared")
    return parser.parse_args(arguments)


async def main() -> None:
    chosen = parse()
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_model import write_tiny_model

    with real_kafka(chosen.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as folder:
        os.environ["MURMURA_CACHE"] = f"{folder}/cache"
        model = chosen.model or write_tiny_model(Path(folder) / "tiny")
        await run(bootstrap, Path(folder), model, chosen)


if __name__ == "__main__":
    asyncio.run(main())
