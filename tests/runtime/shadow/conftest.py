"""A process in which a version is only compared: a dispatcher, an engine and a slot, without a broker."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.batching.engine import Engine
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.release.slot import ModelSlot
from murmura.runtime.settings.settings import Settings
from murmura.runtime.settings.shadow import ShadowSettings
from murmura.runtime.shadow.disagreements import DisagreementReviews
from murmura.runtime.shadow.messages import ShadowMessages
from murmura.runtime.shadow.shared import Shared
from murmura.runtime.testing.fakes import FakeModel, classified
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.shadow import ShadowRecord

INTENT = TaskSpec(name="intent", kind="classification", labels=["refund", "praise"])
AGENT = replace(classification, topics=("in",), output="out", tasks=("intent",))
PARTITION = TopicPartition("in", 0)
NOW = datetime(2026, 5, 3, 10, 20, tzinfo=UTC)


class Broker:
    def __init__(self):
        self.taking = asyncio.Event()
        self.taking.set()
        self.taken = []

    async def publish(self, messages):
        self.taken += messages
        return [None] * len(messages)

    async def partitions(self, topic):
        return 3


def make_model(version, **options):
    made = FakeModel([INTENT], version=version, **options)
    made.pass_time = None
    return made


def praise(text):
    """The answers of a version that takes what begins with `g` for praise."""
    return {"intent": classified("praise" if text.startswith("g") else "refund", 0.75)}


class Process:
    def __init__(self, engine, agents=(AGENT,), **limits):
        self.engine, self.broker, self.tracker, self.metrics = engine, Broker(), Tracker(), Metrics()
        self.dispatcher = Dispatcher(
            engine,
            self.broker,
            self.tracker,
            self.metrics,
            routes=make_routes(agents, engine.model.manifest, "test"),
            dead_letters="dead",
            max_value_bytes=1000,
        )
        self.sent, self.asked = [], []
        self.shared = Shared(
            ShadowSettings(**{"max_pass_ms": 1000, **limits}),
            ShadowMessages("murmura.shadow", "test", "here"),
            self.sent.append,
            self.metrics,
            clock=lambda: NOW,
            reviews=DisagreementReviews("murmura.reviews", "test", 6, self.metrics),
            put_review=self.asked.append,
        )
        self.slot = ModelSlot(Settings(app="test"), agents, engine, self.dispatcher, self.shared)
        self.faults, self.offset = [], 0
        self.feeding = asyncio.create_task(self.dispatcher.run())

    def put_shadow(self, model, share=1.0):
        self.slot.put_shadow(model, share, self.faults.append)

    async def answer(self, *texts, dead_letters=0):
        """Return the results of texts, whose request ids they are."""
        self.broker.taken.clear()
        values = [json.dumps({"id": text, "text": text}).encode() for text in texts]
        records = [
            ConsumerRecord("in", 0, self.offset + n, 1000, 0, None, value, None, -1, len(value), ())
            for n, value in enumerate(values)
        ]
        self.offset += len(records)
        self.dispatcher.receive({PARTITION: records})
        await until(lambda: not self.dispatcher.has_work)
        assert self.tracker.progress(PARTITION).committable == self.offset
        results = [json.loads(message.value) for message in self.broker.taken if message.topic == "out"]
        assert dead_letters == len(self.broker.taken) - len(results)
        return {result["request_id"]: result for result in results}

    def count(self, outcome):
        labels = {"model": "fake", "outcome": outcome}
        return self.metrics.registry.get_sample_value("murmura_shadow_records_total", labels) or 0

    def records(self):
        """Return what was published, with the counts since the last call."""
        self.shared.publish_counts()
        found = [ShadowRecord.model_validate_json(message.value).root for message in self.sent]
        self.sent.clear()
        return found


async def until(holds):
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.001)


@pytest.fixture
async def start():
    """Return what starts a process with a current version 1."""
    started = []

    async def start(current=None, engine=None, **limits):
        engine = Engine(current or make_model(1), token_budget=1000, max_in_flight=1, **(engine or {}))
        await engine.start()
        engine._costs._overhead_s, engine._costs._token_s = 0.001, 0.0001
        started.append(Process(engine, **limits))
        return started[-1]

    yield start
    for process in started:
        process.feeding.cancel()
        await process.shared.stop()
        await process.engine.stop(5)
