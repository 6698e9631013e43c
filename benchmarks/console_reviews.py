"""How fast one person judges reviews by keyboard in a real browser, and whether each verdict arrives.

    python benchmarks/console_reviews.py [--short] [--reviews N] [--bootstrap HOST:PORT]

Requests, their answers and reviews are written to a real Kafka; the labels are the 77 intents of the demo's model. A console
in this process is used through Chromium with keys alone: one in three texts is corrected by typing a part of the label, one
in three by a digit, the others are confirmed. The aim is 200 reviews in five minutes without a lost one. A simulated person
reads nothing, so the figure is what the console adds to a person's own time.
"""

import argparse
import asyncio
import json
import statistics
import time
import uuid
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from playwright.sync_api import sync_playwright
from real_kafka import make_topics, real_kafka

from murmura.console.assembly import assemble
from murmura.console.server import serve
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import classified
from murmura.schemas.ids import prediction_id

MODEL = Path(__file__).resolve().parents[1] / "scenarios/support/model"
TASK, AGENT = "intent", "classification"
AIM_REVIEWS, AIM_S = 200, 300.0
TOPICS = ("classification.requests", "classification.results", "analysis.results", "dialogue.replies")


async def write_reviews(bootstrap: str, prefix: str, labels: list[str], count: int) -> set[str]:
    """Write so many requests with their answers and reviews; return the prediction ids."""
    made: set[str] = set()
    topic = f"{prefix}.classification.requests"
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for number in range(count):
            text = f"message number {number}: where is the card that was promised last week"
            sent = await producer.send_and_wait(
                topic, json.dumps({"text": text, "id": f"r{number}"}).encode(), partition=0
            )
            this = prediction_id(AGENT, topic, f"r{number}")
            made.add(this)
            label = labels[number % len(labels)]
            common = {
                "prediction_id": this,
                "agent": AGENT,
                "model": {"name": "desk", "version": 3},
                "source": {"topic": topic, "partition": 0, "offset": sent.offset, "timestamp": sent.timestamp},
            }
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            result = {
                "request_id": f"r{number}",
                "outputs": {TASK: classified(label, 0.5, (labels[0], 0.4))},
                "time": now,
            }
            await producer.send(f"{prefix}.classification.results", json.dumps(common | result).encode())
            review = {"task": TASK, "why": "margin", "predicted": label, "score": 0.5, "margin": 0.1, "at": now}
            await producer.send(f"{prefix}.reviews", json.dumps(common | review).encode(), key=this.encode())
    return made


def judge(url: str, count: int, labels: list[str]) -> list[float]:
    """Judge by keys; return the time (s) from Enter to the next text for each review."""
    waits: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(url)
        while not page.locator("#review-item form.review").count():
            page.wait_for_timeout(300)
            page.reload()
        for number in range(count):
            shown = page.locator("#review-item form.review").get_attribute("data-item")
            if number % 3 == 1:
                page.keyboard.press(str(1 + number % 9))
            elif number % 3 == 2:
                page.keyboard.press("/")
                page.keyboard.type(labels[number % len(labels)][:12])
                page.keyboard.press("Enter")
            began = time.perf_counter()
            page.keyboard.press("Enter")
            following = page.locator(f'#review-item form.review:not([data-item="{shown}"]), #review-empty')
            following.first.wait_for(timeout=30_000)
            waits.append(time.perf_counter() - began)
        page.locator("#review-counts", has_text=f"{count} by you").wait_for(timeout=60_000)
        for _ in range(100):
            page.reload()
            if "0 unsent" in str(page.locator("#review-unsent").text_content()):
                break
            page.wait_for_timeout(200)
        browser.close()
    return waits


async def read_feedback(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        while batch := await consumer.getmany(timeout_ms=2000):
            found += [json.loads(record.value) for records in batch.values() for record in records]
    return found


async def measure(bootstrap: str, count: int) -> bool:
    prefix = f"reviews-{uuid.uuid4().hex[:8]}"
    names = [f"{prefix}.{name}" for name in (*TOPICS, "reviews", "feedback", "deadletters")]
    await make_topics(bootstrap, names, partitions=4)
    labels = next(task.labels for task in read_manifest(MODEL).tasks if task.name == TASK)
    wanted = await write_reviews(bootstrap, prefix, labels, count)
    settings = Settings(
        prefix=prefix,
        app=prefix,
        kafka={"bootstrap_servers": bootstrap},
        model={"folder": MODEL},
        console={"overlap": 0.0},
    )
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    console = asyncio.create_task(serve(assemble(settings), ("127.0.0.1", 0), stop=stop, ready=ready.set_result))
    url = f"{await ready}/reviews"
    began = time.perf_counter()
    waits = await asyncio.to_thread(judge, url, count, labels)
    took = time.perf_counter() - began
    stop.set()
    await console
    arrived = [each["prediction_id"] for each in await read_feedback(bootstrap, f"{prefix}.feedback")]
    lost, twice = len(wanted - set(arrived)), len(arrived) - len(set(arrived))
    waits_ms = sorted(1000 * each for each in waits)
    print(f"{count} reviews in {took:.0f} s, {took / count:.2f} s each; lost {lost}, twice {twice}")
    print(
        f"from Enter to the next text: median {statistics.median(waits_ms):.0f} ms, p95 {waits_ms[int(0.95 * count)]:.0f} ms"
    )
    return not lost and took / count <= AIM_S / AIM_REVIEWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="20 reviews")
    parser.add_argument("--reviews", type=int, default=AIM_REVIEWS)
    parser.add_argument("--bootstrap", help="default: a Kafka of its own")
    chosen = parser.parse_args()
    with real_kafka(chosen.bootstrap) as bootstrap:
        met = asyncio.run(measure(bootstrap, 20 if chosen.short else chosen.reviews))
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
