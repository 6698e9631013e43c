"""A load generator in a process of its own: `python benchmarks/load.py BOOTSTRAP TOPIC RECORDS RATE DATA [--light]`.

RATE 0 sends as fast as it can. Values have 325 bytes, texts are utterances of CLINC150's test set, keys are 5,000
conversations. Prints one JSON line with what it reached.
"""

import json
import sys
import time
from pathlib import Path

from confluent_kafka import Producer

VALUE_BYTES = 325


def utterances(data: Path) -> list[str]:
    """Return the texts of CLINC150's test set, in file order."""
    with (data / "clinc150/test.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def request(text: str) -> bytes:
    """Return a request padded to a usual size: ids, tenant and channel travel along with most texts."""
    body = {"text": text, "metadata": {"channel": "web", "tenant": "acme", "note": ""}}
    body["metadata"]["note"] = "n" * max(0, VALUE_BYTES - len(json.dumps(body)))  # type: ignore[index]
    return json.dumps(body).encode()


def send(bootstrap: str, topic: str, records: int, rate: float, data: Path) -> dict[str, float]:
    """Send `records` at `rate` a second; returns the rate reached."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 2,
            "acks": "all",
            "enable.idempotence": True,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    values = [request(text) for text in utterances(data)]
    began, sent = time.perf_counter(), 0
    while sent < records:
        due = int((time.perf_counter() - began) * rate) if rate else records
        if sent >= due:
            producer.poll(0)
            time.sleep(0.001)
            continue
        for _ in range(min(due, records) - sent):
            try:
                producer.produce(topic, values[sent % len(values)], key=b"c-%05d" % (sent % 5000))
            except BufferError:
                producer.poll(0.05)
                break
            sent += 1
            if not sent & 1023:
                producer.poll(0)
    producer.flush(60)
    return {"records": sent, "per_s": sent / (time.perf_counter() - began)}


if __name__ == "__main__":
    bootstrap, topic, records, rate, data = sys.argv[1:6]
    print(json.dumps(send(bootstrap, topic, int(records), float(rate), Path(data))))
