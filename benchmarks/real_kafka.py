"""A real Kafka for the benchmarks: the one that is named, else one of our own from `deploy/kafka`."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from murmura.runtime.kafka.topics import create_topics
from murmura.runtime.settings.settings import KafkaSettings
from murmura.schemas.topics import Topic

SCRIPT = Path(__file__).resolve().parents[1] / "deploy/kafka/kafka"


@contextmanager
def real_kafka(bootstrap: str | None) -> Iterator[str]:
    """Yield a bootstrap address."""
    if bootstrap:
        yield bootstrap
        return
    with tempfile.TemporaryDirectory() as data:
        started = subprocess.run(
            [sys.executable, str(SCRIPT), "start", "--port", "0", "--data", data],
            check=True,
            capture_output=True,
            text=True,
        )
        try:
            yield next(word.rstrip(".,") for word in started.stdout.split() if word.startswith("127.0.0.1:"))
        finally:
            subprocess.run([sys.executable, str(SCRIPT), "stop", "--data", data], check=False, capture_output=True)


async def make_topics(bootstrap: str, names: Sequence[str], *, partitions: int) -> None:
    """Make topics and wait until each partition has a leader."""
    kafka = KafkaSettings(bootstrap_servers=bootstrap)
    await create_topics(kafka, {name: Topic(name, "any", "any", "many") for name in names}, many=partitions)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        while not all(
            partition["leader"] >= 0
            for topic in await admin.describe_topics(list(names))
            for partition in topic["partitions"]
        ):
            pass
    finally:
        await admin.close()
