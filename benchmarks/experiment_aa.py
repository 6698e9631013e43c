"""An A/A experiment on the real runtime: the same model as current version and as candidate; neither may win.

    python benchmarks/experiment_aa.py [--minutes 60] [--rate 20] [--share 5%] [--model FOLDER] [--bootstrap HOST:PORT]

Two processes of `murmura serve` classify customers' messages on a real Kafka; `murmura models canary` starts the experiment. The rules are
the defaults, but for their hours and their number of units, so that a decision is possible. Simulated people judge the answers that are
drawn at random, and agree with nine of ten. Halfway the process that holds the experiment is killed (kill -9), and one is started in
its place ten seconds later. The model is the tests' tiny one: what is measured is who is counted and what is decided.

Printed at the end: results by side, failures, units, the sums of each measure, the mismatch check, what was decided, and how many messages are lost.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from aiokafka import AIOKafkaProducer
from real_kafka import make_topics, real_kafka
from serving_members import Members

from murmura.runtime.experiments.kept_state import split_key
from murmura.runtime.experiments.report import Report, report_experiment
from murmura.runtime.kafka.changelog import read_to_end
from murmura.runtime.kafka.groupless_reader import open_reader
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.release.states import publish_state, read_states
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import KafkaSettings
from murmura.scenarios.support.experiment.people import make_verdict
from murmura.scenarios.support.place import ROWS
from murmura.schemas.experiment_state import ExperimentState
from murmura.schemas.feedback import Feedback
from murmura.schemas.release import released
from murmura.schemas.review import Review

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ("dev-messages", "report-messages")
MESSAGES_A_CUSTOMER = 3
DISAGREE = 0.1
"""Share of the answers that people correct."""
RANDOM_SHARE = 0.5
RULES = {"min_units": 200, "min_hours": 0.2, "attribution_hours": 0.05, "hold_back_hours": 0.05}
AWAY_S = 10.0
SETTLE_S = 60.0


@dataclass
class Counts:
    """What was sent and what came of it."""

    sent: int = 0
    open: set[str] = field(default_factory=set)
    results: Counter[str] = field(default_factory=Counter)
    """By the side that answered; a repeated one counts."""
    repeated: int = 0
    dead_letters: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    events: list[str] = field(default_factory=list)
    failed: int = 0
    """Results that say that the candidate has failed."""

    def read_result(self, result: Mapping[str, Any]) -> None:
        self.results[result["model"].get("variant", "current")] += 1
        self.failed += bool(result.get("candidate_failed"))
        if result["request_id"] in self.open:
            self.open.discard(result["request_id"])
        else:
            self.repeated += 1


class People:
    """Judge what is drawn, whichever version has answered."""

    def __init__(self) -> None:
        self._draw = random.Random(2)

    def judge(self, review: Review) -> Feedback:
        return make_verdict(review, None if self._draw.random() >= DISAGREE else "another", "ann")


class Trial:
    """The experiment, its messages and its people."""

    def __init__(self, bootstrap: str, folder: Path, model: Path, rate: float, share: str) -> None:
        self._model, self._name = model, read_manifest(model).name
        self.prefix = f"aa-{uuid.uuid4().hex[:6]}"
        self._bootstrap, self._folder, self._rate, self._share = bootstrap, folder, rate, share
        self._kafka = KafkaSettings(bootstrap_servers=bootstrap)
        self._store = ModelStore(str(folder / "store"))
        self._requests, self._results = f"{self.prefix}.requests", f"{self.prefix}.classification.results"
        self._rows = [json.loads(line) for name in TEXTS for line in (ROWS / f"{name}.jsonl").open(encoding="utf-8")]
        self._people, self.counts = People(), Counts()
        self._reviews: deque[Review] = deque()

    async def prepare(self) -> Path:
        """Make topics and the store, release the first version, and return the settings' file."""
        many = [self._requests, self._results, *(f"{self.prefix}.{name}" for name in ("deadletters", "retries"))]
        await make_topics(self._bootstrap, many, partitions=4)
        one = ("models", "events", "experiments", "reviews", "feedback")
        await make_topics(self._bootstrap, [f"{self.prefix}.{name}" for name in one], partitions=1)
        for _ in range(2):
            self._store.push(self._model)
        digest, now = self._store.digest(self._name, 1), datetime.now(UTC)
        state = released(None, self._name, 1, digest, by="benchmark", why="the first", at=now)
        await publish_state(self._kafka, f"{self.prefix}.models", state)
        settings = {
            "app": self.prefix,
            "prefix": self.prefix,
            "kafka": {"bootstrap_servers": self._bootstrap},
            "model": {"store": self._store.address, "name": self._name, "device": "cpu", "cores": 1},
            "agents": {"classification": {"topics": [self._requests]}},
            "reviews": {"random_share": RANDOM_SHARE},
            "http": "127.0.0.1:0",
            "log": {"format": "json"},
        }
        (self._folder / "rules.yaml").write_text(yaml.safe_dump(RULES))
        config = self._folder / "serve.yaml"
        config.write_text(yaml.safe_dump(settings))
        return config

    async def start_experiment(self, config: Path) -> None:
        arguments = [self._name, "2", "--share", self._share, "--rules", self._folder / "rules.yaml", "--no-power"]
        command = [Path(sys.executable).with_name("murmura"), "models", "canary", *arguments, "--config", config]
        started = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True, text=True)
        if started.returncode:
            raise RuntimeError(started.stderr or started.stdout)
        print(started.stdout.strip().splitlines()[-1], flush=True)

    async def send(self, producer: AIOKafkaProducer, seconds: float) -> None:
        """Send messages at the rate, a customer's one after the other. Raises the error of one that the broker did not take."""
        draw, began, waiting = random.Random(1), time.monotonic(), list[asyncio.Future[Any]]()
        while (passed := time.monotonic() - began) < seconds:
            while self.counts.sent < passed * self._rate:
                number = self.counts.sent
                text = draw.choice(self._rows)["text"]
                request, key = f"r{number}", f"customer-{number // MESSAGES_A_CUSTOMER}"
                self.counts.open.add(request)
                self.counts.sent += 1
                value = json.dumps({"id": request, "text": text}).encode()
                waiting.append(await producer.send(self._requests, value, key=key.encode()))
            await asyncio.sleep(0.2)
            waiting = [each for each in waiting if not each.done() or each.result() is None]
        await asyncio.gather(*waiting)

    async def read(self, consumer: Any) -> None:
        """Read what comes of them until cancelled."""
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    self._take(partition.topic.removeprefix(f"{self.prefix}."), record.value)

    def _take(self, topic: str, value: bytes) -> None:
        if topic == "reviews":
            self._reviews.append(Review.model_validate_json(value))
        elif topic == "events":
            event = json.loads(value)
            self.counts.events.append(f"{event['event']} {event.get('message') or ''}".strip())
        elif topic == "deadletters":
            self.counts.dead_letters += 1
        else:
            self.counts.read_result(json.loads(value))

    async def judge(self, producer: AIOKafkaProducer) -> None:
        """Send a verdict on each drawn answer, until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            while self._reviews:
                feedback = self._people.judge(self._reviews.popleft())
                self.counts.verdicts[str(feedback.verdict)] += 1
                key = (feedback.prediction_id or "").encode()
                await producer.send(f"{self.prefix}.feedback", feedback.model_dump_json().encode(), key=key)

    @asynccontextmanager
    async def reading(self, producer: AIOKafkaProducer) -> AsyncIterator[None]:
        """Read and judge during the block."""
        topics = [self._results, *(f"{self.prefix}.{name}" for name in ("reviews", "events", "deadletters"))]
        async with open_reader(self._kafka, topics, from_beginning=True) as consumer, asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.read(consumer)), group.create_task(self.judge(producer))]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    async def find_report(self) -> tuple[ExperimentState, Report]:
        """Return what is kept of the experiment."""
        found: list[ExperimentState] = []

        def take(partition: int, key: bytes | None, value: bytes | None) -> None:
            if value is not None and split_key((key or b"").decode())[1] is None:
                found.append(ExperimentState.model_validate_json(value))

        await read_to_end(self._kafka, f"{self.prefix}.experiments", [0], take)
        return found[-1], report_experiment(found[-1])

    async def is_running(self) -> bool:
        return (await read_states(self._kafka, f"{self.prefix}.models"))[self._name].candidate is not None


async def kill_halfway(members: Members, after_s: float) -> None:
    await asyncio.sleep(after_s)
    while not members.kill_holder():
        await asyncio.sleep(1.0)
    print(f"after {after_s / 60:.1f} minutes the holding process was killed", flush=True)
    await asyncio.sleep(AWAY_S)
    members.start()


async def watch(trial: Trial, members: Members) -> None:
    """Print a line every five minutes until cancelled; raises RuntimeError when a process has ended by itself."""
    began, shown = time.monotonic(), 0.0
    while True:
        await asyncio.sleep(5.0)
        members.check()
        if time.monotonic() - shown >= 300:
            shown, counts = time.monotonic(), trial.counts
            line = f"{counts.sent:,} sent, {len(counts.open):,} open, {dict(counts.results)}, {dict(counts.verdicts)}"
            print(f"{(shown - began) / 60:.0f} minutes: {line}", flush=True)


async def run(bootstrap: str, folder: Path, model: Path, minutes: float, rate: float, share: str) -> bool:
    trial = Trial(bootstrap, folder, model, rate, share)
    config = await trial.prepare()
    members = Members(config, folder)
    try:
        for _ in range(2):
            members.start()
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer, trial.reading(producer):
            await trial.start_experiment(config)
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(watch(trial, members))
                killing = group.create_task(kill_halfway(members, minutes * 30))
                await trial.send(producer, minutes * 60)
                await killing
                await asyncio.sleep(SETTLE_S)
                watching.cancel()
        members.check()
        state, report = await trial.find_report()
        is_running = await trial.is_running()
        members.stop()
    finally:
        members.end()
    show(trial.counts, state, report, members.warnings())
    return is_running and not trial.counts.open and report.mismatch >= 0.0005


def show(counts: Counts, state: ExperimentState, report: Report, warnings: Counter[str]) -> None:
    print(f"results read: {dict(counts.results)}, {counts.repeated} repeated, {counts.failed} failed by the candidate")
    print(f"results counted by the holder: {dict(state.answers)}, skipped {dict(state.skipped)}")
    control, candidate = report.units
    print(f"units: {control:,} current, {candidate:,} candidate, {report.open_units:,} open, {report.moved} moved")
    print(f"verdicts sent: {dict(counts.verdicts)}")
    for row in (*report.rows, *report.by_task):
        interval = f"[{row.low:+.4f}, {row.high:+.4f}]"
        print(f"  {row.key}: {row.control:.4f} and {row.candidate:.4f}, {interval} {row.verdict}, units {row.units}")
    print(
        f"slow passes: latest 95 % (candidate, current) {state.pass_ratios.latest}, in a row {state.pass_ratios.in_row}"
    )
    print(f"mismatch: p = {report.mismatch:.3g}; decided: {[each.model_dump() for each in state.decided]}")
    common = [f"{number} x {text.splitlines()[0][:80]}" for text, number in warnings.most_common(5)]
    print(f"events: {counts.events}; {warnings.total()} warnings, most often: {common}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime
    print(f"CPU: {seconds:.0f} s the processes, {own.ru_utime + own.ru_stime:.0f} s customers and people")
    print(
        f"published {counts.sent:,}, answered {counts.sent - len(counts.open):,}, dead letters {counts.dead_letters}, lost {len(counts.open)}"
    )


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", help="a running Kafka; default: one is started")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a model folder; default: the tests' tiny model")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second")
    parser.add_argument("--share", default="5%", help="the candidate's")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_model import write_tiny_model

    with real_kafka(args.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as folder:
        os.environ["MURMURA_CACHE"] = f"{folder}/cache"
        model = args.model or write_tiny_model(Path(folder) / "tiny")
        return 0 if await run(bootstrap, Path(folder), model, args.minutes, args.rate, args.share) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
