"""What tracing costs a record: CPU time with it and without it, in turns, over the same records.

    python benchmarks/tracing.py [--short]

The way of a record is the real one from its bytes to its messages (decoding, two agents, a rule that hands on); model and
broker are fakes that cost next to nothing. Spans go by OpenTelemetry's own exporter to a collector in another process.
CPU seconds of this process count, those of the exporter's thread among them.
"""

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from aiokafka.structs import ConsumerRecord, TopicPartition

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.observe.tracing import Tracing
from murmura.runtime.settings.routing_rules import Rule
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeEngine, FakeModel
from murmura.schemas.manifest import TaskSpec

COLLECTOR = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *args): pass
server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0%d"
MODEL = FakeModel(
    [
        TaskSpec(name="intent", kind="classification", labels=["a", "b", "c"]),
        TaskSpec(name="sentiment", kind="classification", labels=["negative", "positive"]),
    ]
)
RULE = Rule(agent="classification", otherwise=True, topic="onward")
AGENTS = [
    replace(classification, topics=("in",), output="classified", routing=(RULE,)),
    replace(analysis, topics=("in",), output="analysed"),
]
CHUNK = 256


class Broker:
    """Takes everything at once."""

    def __init__(self) -> None:
        self.taking = asyncio.Event()
        self.taking.set()

    async def publish(self, messages: Sequence[object]) -> list[None]:
        return [None] * len(messages)

    async def partitions(self, topic: str) -> int:
        return 4


@contextmanager
def collector() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1/traces"
    finally:
        process.terminate()
        process.wait()


def made(count: int, flagged: int | None) -> list[ConsumerRecord]:
    """Records of which the sender marked every `flagged`-th as sampled; None: they have no traceparent."""
    records = []
    for n in range(count):
        value = json.dumps({"id": f"order-{n}", "text": "where is the card that I ordered two weeks ago?"}).encode()
        headers = () if flagged is None else (("traceparent", TRACE % (n % flagged == 0)),)
        records.append(ConsumerRecord("in", 0, n, 0, 0, b"k", value, None, -1, -1, headers))
    return records


async def cpu_us(records: list[ConsumerRecord], tracing: Tracing | None) -> float:
    """Return the CPU time a record of this process, in us."""
    dispatcher = Dispatcher(
        FakeEngine(MODEL),
        Broker(),
        Tracker(),
        Metrics(),
        routes=make_routes(AGENTS, MODEL.manifest, "bench"),
        dead_letters="dead",
        max_value_bytes=10_000,
        tracing=tracing,
    )
    feeding = asyncio.create_task(dispatcher.run())
    gc.collect()
    gc.freeze()  # as serving does it
    began = time.process_time()
    for start in range(0, len(records), CHUNK):
        dispatcher.receive({TopicPartition("in", 0): records[start : start + CHUNK]})
        while dispatcher.has_work:
            await asyncio.sleep(0)
    if tracing is not None:
        await tracing.stop()
    used = time.process_time() - began
    feeding.cancel()
    return used / len(records) * 1e6


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="not used; run.py gives it to all")
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    rounds, count = (5, 5_000) if args.short else (15, 20_000)
    cases = {
        "1 % by request id": (None, 0.01),
        "1 % marked by the sender": (100, 0.01),
        "none marked by the sender": (10**9, 0.01),
        "all": (None, 1.0),
    }
    gc.set_threshold(50_000, 20, 100)
    with collector() as endpoint:
        for name, (flagged, ratio) in cases.items():
            records = made(count, flagged)
            on = Settings(tracing={"exporter": "otlp", "endpoint": endpoint, "sample_ratio": ratio})
            without, with_it = [], []
            for number in range(rounds + 1):
                turns = [(without, None), (with_it, Tracing.from_settings(on))]
                for figures, tracing in turns[:: 1 if number % 2 else -1]:
                    figures.append(await cpu_us(records, tracing))
            more = sorted(b - a for a, b in zip(without[1:], with_it[1:], strict=True))  # the first round warms up
            print(
                f"{name}: {statistics.median(more):.2f} us a record more (rounds from {more[0]:.2f} to {more[-1]:.2f}), "
                f"on {statistics.median(without):.1f} us; to reach at 1 %: <= 10 us"
            )


if __name__ == "__main__":
    asyncio.run(main())
