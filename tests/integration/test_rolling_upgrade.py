"""An older version and this one share a group under load: an upgrade and the way back lose nothing."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

ROOT = Path(__file__).resolve().parents[2]
OLDER = "57b70e4"
"""The last commit without the topic of retries."""
RATE = 100
PARTITIONS = 6
READY_S, FINISHED_S = 60.0, 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the older version's package."""
    found = subprocess.run(["git", "cat-file", "-e", f"{OLDER}^{{commit}}"], cwd=ROOT, capture_output=True)
    if found.returncode != 0:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"git has no commit {OLDER} here: the older version is made from the history (git fetch --unshallow)")
    folder = tmp_path_factory.mktemp("older")
    archive = subprocess.run(["git", "archive", "--prefix=murmura/", OLDER], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    write_metadata(folder)
    return folder


def write_metadata(folder: Path) -> None:
    """Write what an installation of the older version would: found first, it hides this version's entry points."""
    metadata = folder / "murmura-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: murmura\nVersion: 0\n")
    groups = tomllib.loads((folder / "murmura/pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in entries.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


RUN = (
    "from importlib import import_module, util; command = 'murmura.runtime.' + 'cli'; "
    "is_folder = util.find_spec(command).submodule_search_locations; "
    "import_module(command + '.main' if is_folder else command).main()"
)
"""The command of either version: what was a module is a folder now."""


class Process:
    """One `murmura serve` of a version; `package` is the folder that holds the older one."""

    def __init__(self, environment: dict[str, str], model: Path, log: Path, package: Path | None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.http = f"127.0.0.1:{free.getsockname()[1]}"
        run = f"import murmura; print(*murmura.__path__, flush=True); {RUN}"
        command = [
            sys.executable,
            "-P",
            "-c",
            run,
            "serve",
            "classification",
            "--model",
            str(model),
            "--http",
            self.http,
        ]
        path = {"PYTHONPATH": str(package)} if package else {}
        self.package = package / "murmura" if package else ROOT
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=environment | path, cwd=log.parent, stdout=output, stderr=subprocess.STDOUT
            )

    async def ready(self) -> "Process":
        until = time.monotonic() + READY_S
        while time.monotonic() < until and self.process.poll() is None:
            with suppress(OSError):
                if (await asyncio.to_thread(urlopen, f"http://{self.http}/readyz", timeout=2)).status == 200:
                    assert Path(self.log.read_text().splitlines()[0]).resolve() == self.package.resolve()
                    return self
            await asyncio.sleep(0.2)
        raise AssertionError(f"not ready:\n{self.log.read_text()[-3000:]}")

    async def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.process.wait, 60) == 0, self.log.read_text()[-3000:]


@pytest.fixture
def start(kafka, unique, older, tiny_model, tmp_path) -> Iterator:
    prefix = unique("roll")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MURMURA_", "PYTHON"))}
    environment = clean | {
        "MURMURA_APP": prefix,
        "MURMURA_PREFIX": prefix,
        "MURMURA_KAFKA__BOOTSTRAP_SERVERS": kafka,
        "MURMURA_MODEL__CORES": "1",
        "MURMURA_MODEL__TOKEN_BUDGET": "256",
        "OMP_NUM_THREADS": "1",
    }
    running: list[Process] = []

    def begin(version: str) -> Process:
        log = tmp_path / f"{len(running)}-{version}.log"
        running.append(Process(environment, tiny_model, log, older if version == "older" else None))
        return running[-1]

    begin.prefix, begin.environment = prefix, environment
    yield begin
    for one in running:
        one.process.kill()
        one.process.wait()


def create_topics(environment: dict[str, str]) -> None:
    """As the upgrade's first step: the topics that this version needs."""
    command = ["topics", "--create", "--partitions", str(PARTITIONS)]
    subprocess.run([sys.executable, "-P", "-c", RUN, *command], env=environment, check=True, capture_output=True)


async def send_until(stop: asyncio.Event, bootstrap: str, topic: str) -> int:
    """Send RATE records a second until `stop`, and return how many were acknowledged."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    sent = []
    try:
        while not stop.is_set():
            value = json.dumps({"id": str(len(sent)), "text": f"where is card number {len(sent)}"}).encode()
            sent.append(await producer.send(topic, value, partition=len(sent) % PARTITIONS))
            await asyncio.sleep(1 / RATE)
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return len(sent)


async def read_results(bootstrap: str, topic: str, count: int) -> dict[str, set[str]]:
    """Return the prediction ids by request id, once `count` requests have one; less when time is up."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    answers: dict[str, set[str]] = defaultdict(set)
    until = time.monotonic() + FINISHED_S
    try:
        while len(answers) < count and time.monotonic() < until:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    result = json.loads(record.value)
                    answers[result["request_id"]].add(result["prediction_id"])
    finally:
        await consumer.stop()
    return answers


async def size_of(bootstrap: str, topic: str) -> int:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        return sum((await consumer.end_offsets(list(consumer.assignment()))).values())
    finally:
        await consumer.stop()


async def test_an_upgrade_process_by_process_and_the_way_back_lose_nothing(start, kafka):
    await asyncio.to_thread(create_topics, start.environment)
    first, second = start("older"), start("older")
    await first.ready()
    await second.ready()
    enough = asyncio.Event()
    sending = asyncio.create_task(send_until(enough, kafka, f"{start.prefix}.classification.requests"))
    served = [first, second]
    try:
        for version in ("newer", "newer", "older"):
            served.append(await start(version).ready())
            await asyncio.sleep(2.0)  # both versions at work
            await served.pop(0).stop()
    finally:
        enough.set()
    count = await sending
    answers = await read_results(kafka, f"{start.prefix}.classification.results", count)
    assert count > 500
    assert sorted(map(int, answers)) == list(range(count))
    assert [name for name, predictions in answers.items() if len(predictions) > 1] == []
    assert await size_of(kafka, f"{start.prefix}.deadletters") == 0
    for one in served:
        await one.stop()


def test_the_older_version_is_another_one(older):
    assert not (older / "murmura/schemas/topics.py").read_text().count("retries")
