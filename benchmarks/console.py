"""How soon the console answers, and how much memory it takes, when records have passed through it.

    python benchmarks/console.py [--short] [--records N] [--bootstrap HOST:PORT]

The console runs as a process of its own on a real Kafka before anything is written. Then N results, one in fifty a dead letter
in its place, are written by librdkafka as fast as the broker takes them, and followed by the console as in operation. Each page
is asked for while they pass and again when the last one is on the screen of the live flow; the time is that of the first byte of
the answer. Memory is the highest resident set of the process (VmHWM). The aims are 50 ms for the 95th percentile and 200 MB.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

from confluent_kafka import Producer
from real_kafka import make_topics, real_kafka

from murmura.schemas.deadletter import DeadLetter, DeadLetterReason

AIM_MS, AIM_MB = 50.0, 200.0
PAGES = ("/", "/live", "/live?label=refund&most=0.7", "/dead-letters", "/versions", "/try")
ROUNDS = 40
REQUESTS = 1000
ONE_IN = 50
LAST_VERSION = 999
"""Of the last result, by which it is found."""
LABELS = ("refund", "loan", "card", "transfer", "pin", "rate", "fee")
TOPICS = (
    "classification.requests", "classification.results", "analysis.requests", "analysis.results",
    "dialogue.replies", "feedback", "reviews", "deadletters", "models", "events", "training",
)  # fmt: skip


def make_result(number: int, topic: str, written: dict[int, int], version: int = 3) -> bytes:
    """Return the value of a result about one of the requests that are there."""
    offset = number % REQUESTS
    label = LABELS[number % len(LABELS)]
    value = {
        "request_id": f"r-{number}",
        "prediction_id": f"{number:032x}",
        "agent": "classification",
        "model": {"name": "desk", "version": version},
        "source": {"topic": topic, "partition": 0, "offset": offset, "timestamp": written[offset]},
        "outputs": {
            "intent": {
                "kind": "classification",
                "label": label,
                "score": 0.5 + (number % 50) / 100,
                "alternatives": [{"label": other, "score": 0.1} for other in LABELS[:3]],
            },
            "slots": {
                "kind": "tagging",
                "spans": [{"label": "card", "text": "card", "start": 13, "end": 17, "score": 0.9}],
            },
        },
        "time": "2026-01-01T00:00:00Z",
    }
    return json.dumps(value).encode()


def write_requests(producer: Producer, topic: str) -> dict[int, int]:
    """Write the requests; return the time (ms) of each by its offset."""
    written: dict[int, int] = {}

    def note(error: object, message: object) -> None:
        assert error is None, error
        written[message.offset()] = message.timestamp()[1]  # type: ignore[attr-defined]

    for number in range(REQUESTS):
        text = f"where is the card number {number} that was promised for last week?"
        producer.produce(topic, json.dumps({"id": f"r-{number}", "text": text}).encode(), partition=0, on_delivery=note)
    producer.flush()
    return written


def write_records(producer: Producer, prefix: str, count: int) -> float:
    """Write results and dead letters; return how long it took (s). The last record is a result."""
    requests = f"{prefix}.classification.requests"
    written = write_requests(producer, requests)
    letter = DeadLetter(
        reason=DeadLetterReason.AGENT_FAILED,
        message="ValueError: no such card",
        agent="classification",
        topic=requests,
        partition=0,
        offset=7,
        timestamp=written[7],
        time=datetime.now(UTC),
    )
    headers = list(letter.headers())
    begun = time.perf_counter()
    for number in range(count):
        while True:
            try:
                if number % ONE_IN == 0 and number + 1 < count:
                    producer.produce(f"{prefix}.deadletters", b'{"text": "where is it?"}', headers=headers)
                else:
                    value = make_result(number, requests, written, LAST_VERSION if number + 1 == count else 3)
                    producer.produce(f"{prefix}.classification.results", value, partition=number % 4)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush()
    return time.perf_counter() - begun


class Browser:
    """Asks for pages over one connection, as a browser does."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def time_page(self, path: str) -> float:
        """Return the time (ms) to the first byte of the answer."""
        begun = time.perf_counter()
        self._connection.request("GET", path, headers={"sec-fetch-site": "none"})
        answer = self._connection.getresponse()
        took = 1000 * (time.perf_counter() - begun)
        assert answer.status == 200, (path, answer.status)
        answer.read()
        return took

    def read(self, path: str) -> str:
        self._connection.request("GET", path, headers={"sec-fetch-site": "none"})
        return self._connection.getresponse().read().decode()


@contextlib.contextmanager
def run_console(bootstrap: str, prefix: str) -> Iterator[tuple[int, int]]:
    """Yield process id and port of a console."""
    environment = os.environ | {"MURMURA_PREFIX": prefix, "MURMURA_APP": prefix, "MURMURA_LOG__FORMAT": "json"}
    command = [
        str(Path(sys.executable).parent / "murmura"),
        "console",
        "--http",
        "127.0.0.1:0",
        "--bootstrap",
        bootstrap,
    ]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            url = next(json.loads(line)["url"] for line in process.stderr if '"url"' in line)
            Thread(target=process.stderr.read, daemon=True).start()  # its log has no reader else
            yield process.pid, int(url.rpartition(":")[2])
        finally:
            process.terminate()


def read_memory_mb(pid: int) -> tuple[float, float]:
    """Return the resident set now and at its highest (MB)."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    now, highest = (int(lines[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return now, highest


def time_pages(browser: Browser, rounds: int) -> dict[str, list[float]]:
    return {path: [browser.time_page(path) for _ in range(rounds)] for path in PAGES}


def print_times(when: str, times: dict[str, list[float]]) -> float:
    """Print percentiles by page; return the 95th of all."""
    for path, values in times.items():
        ordered = sorted(values)
        p50, p95 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95))
        print(f"  {when}, {path}: first byte median {p50:.1f} ms, p95 {p95:.1f} ms")
    ordered = sorted(value for values in times.values() for value in values)
    return ordered[int(0.95 * len(ordered))]


async def measure(bootstrap: str, count: int) -> bool:
    prefix = f"console-{uuid.uuid4().hex[:8]}"
    await make_topics(bootstrap, [f"{prefix}.{name}" for name in TOPICS], partitions=4)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 20,
            "log_level": 3,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 200_000,
        }
    )
    with run_console(bootstrap, prefix) as (pid, port):
        browser = Browser(port)
        begun = time.perf_counter()
        writing = asyncio.create_task(asyncio.to_thread(write_records, producer, prefix, count))
        passing: dict[str, list[float]] = {path: [] for path in PAGES}
        last = f"answer-{count - 1:032x}"
        while last not in await asyncio.to_thread(browser.read, f"/live?version=desk+{LAST_VERSION}"):
            for path in PAGES:
                passing[path].append(await asyncio.to_thread(browser.time_page, path))
            await asyncio.sleep(0.2)
        followed = time.perf_counter() - begun
        wrote = await writing
        still = time_pages(browser, ROUNDS)
        memory, highest = read_memory_mb(pid)
    print(f"{count:,} records: written in {wrote:.0f} s, on the screen after {followed:.0f} s")
    while_passing = print_times("while they pass", passing)
    after = print_times("afterwards", still)
    print(
        f"first byte p95 of all pages: {while_passing:.0f} ms while they pass, {after:.0f} ms afterwards (aim {AIM_MS:.0f} ms)"
    )
    print(f"memory {memory:.0f} MB, at its highest {highest:.0f} MB (aim {AIM_MB:.0f} MB)")
    return after <= AIM_MS and highest <= AIM_MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="20,000 records")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--bootstrap", help="a broker that runs; default: one is started")
    chosen = parser.parse_args()
    with real_kafka(chosen.bootstrap) as bootstrap:
        reached = asyncio.run(measure(bootstrap, 20_000 if chosen.short else chosen.records))
    print("both aims reached" if reached else "an aim was missed")


if __name__ == "__main__":
    main()
