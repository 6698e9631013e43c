"""Serve in this process on a real Kafka, write requests, and read everything that came of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import ConsumerRecord, TopicPartition

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime import serve as app
from murmura.runtime.agent.agent import Agent
from murmura.runtime.settings.settings import Settings

PATIENCE_S = 40.0


@dataclass
class Desk:
    """Topics of one test: both built-in agents read `requests`."""

    bootstrap: str
    prefix: str
    model: Path
    agents: list[Agent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.agents = self.agents or [
            replace(classification, topics=(self.requests,), output=self.classified),
            replace(analysis, topics=(self.requests,), output=self.analysed),
        ]

    @property
    def requests(self) -> str:
        return f"{self.prefix}.requests"

    @property
    def classified(self) -> str:
        return f"{self.prefix}.classified"

    @property
    def analysed(self) -> str:
        return f"{self.prefix}.analysed"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.deadletters"

    def settings(self, **more) -> Settings:
        return Settings(
            **{
                "app": self.prefix,
                "prefix": self.prefix,
                "kafka": {"bootstrap_servers": self.bootstrap},
                "model": {"folder": self.model, "cores": 1, "token_budget": 256},
                "http": "127.0.0.1:0",
            }
            | more
        )

    @asynccontextmanager
    async def serving(self, agents: Iterable[Agent] = (), /, **more) -> AsyncIterator[app.Serving]:
        """Serve while the block runs; leaving it stops cleanly."""
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        serving = app.serve(self.settings(**more), list(agents) or self.agents, stop=stop, ready=ready.set_result)
        task = asyncio.create_task(serving)
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        try:
            yield ready.result()
        finally:
            stop.set()
            await task

    async def send(
        self, *values: bytes | dict | None, topic: str | None = None, key: bytes | None = None, **more
    ) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, max_request_size=16 << 20, linger_ms=5)
        await producer.start()
        try:
            for value in values:
                raw = json.dumps(value).encode() if isinstance(value, dict) else value
                await producer.send(topic or self.requests, raw, key=key or (b"k" if raw is None else None), **more)
        finally:
            await producer.stop()

    async def read(self, topic: str, count: int, *, patience_s: float = PATIENCE_S) -> list[ConsumerRecord]:
        """Read a topic from its beginning until `count` records are there, and whatever else is there then."""
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest", max_partition_fetch_bytes=16 << 20
        )
        await consumer.start()
        records: list[ConsumerRecord] = []
        try:
            async with asyncio.timeout(patience_s):
                while len(records) < count:
                    for batch in (await consumer.getmany(timeout_ms=200)).values():
                        records += batch
            for batch in (await consumer.getmany(timeout_ms=300)).values():
                records += batch
        finally:
            await consumer.stop()
        return records

    async def committed(self) -> dict[int, int]:
        """Return the group's committed offset by partition of the requests, 0 where there is none."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=f"murmura.{self.prefix}")
        await consumer.start()
        try:
            await consumer._client._wait_on_metadata(self.requests)
            partitions = sorted(consumer.partitions_for_topic(self.requests) or ())
            return {p: await consumer.committed(TopicPartition(self.requests, p)) or 0 for p in partitions}
        finally:
            await consumer.stop()

    async def ends(self, topic: str | None = None) -> dict[int, int]:
        """Return the log end by partition of a topic, by default of the requests."""
        topic = topic or self.requests
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await consumer.start()
        try:
            await consumer._client._wait_on_metadata(topic)
            partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
            return {tp.partition: end for tp, end in (await consumer.end_offsets(partitions)).items()}
        finally:
            await consumer.stop()


async def read_values(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    """Return the first `count` values of a topic."""
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        async with asyncio.timeout(60):
            return [(await consumer.getone()).value for _ in range(count)]


def ids(records: Iterable[ConsumerRecord]) -> list[str]:
    """The ids of the requests that results answer."""
    return [json.loads(record.value)["request_id"] for record in records]


def reason(record: ConsumerRecord) -> str:
    return dict(record.headers)["murmura_dl_reason"].decode()


async def health(serving, path="readyz"):
    """Return the status and the body of a health path."""

    def ask():
        try:
            with urlopen(f"{serving.url}/{path}", timeout=5) as answer:
                return answer.status, json.load(answer)
        except HTTPError as refused:
            return refused.code, json.load(refused)

    return await asyncio.to_thread(ask)


async def until(serving, condition):
    async with asyncio.timeout(60):
        while not condition(await health(serving)):
            await asyncio.sleep(0.05)
