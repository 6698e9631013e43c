"""A model with a gate, a sink that keeps everything, and batchers that are stopped when a test ends."""

import asyncio
import threading
from collections import Counter
from dataclasses import replace

import pytest

from murmura.runtime.batching.batcher import Batcher
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.batching.queues.policy import BatchLimits
from murmura.runtime.testing.fakes import FakeModel, classified
from murmura.schemas.manifest import TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=["pay", "other"])
SENTIMENT = TaskSpec(name="sentiment", kind="classification", labels=["good", "bad"])


class GatedModel(FakeModel):
    """Runs only while the gate is open, and says when a run has begun."""

    def __init__(self, **options):
        super().__init__([INTENT, SENTIMENT], lambda text: {"intent": classified(text)}, **options)
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)
        self.calls = Counter()

    def run(self, batch):
        self.begun.release()
        assert self.gate.wait(60)
        return super().run(batch)

    def decode(self, logits, batch, texts, wanted, thresholds=None):
        self.calls["decode"] += 1
        answers = super().decode(logits, batch, texts, wanted, thresholds)
        for answer in answers:
            answer.update({task: {**output, "by": thresholds} for task, output in answer.items()})
        return answers

    async def has_begun(self):
        await asyncio.to_thread(self.begun.acquire, timeout=60)


class Inbox:
    """A sink that keeps every delivery."""

    def __init__(self):
        self.deliveries = []

    def deliver(self, entries):
        self.deliveries.append(entries)

    @property
    def entries(self):
        return [entry for entries in self.deliveries for entry in entries]

    async def holds(self, count):
        async with asyncio.timeout(60):
            while len(self.entries) < count:
                await asyncio.sleep(0.001)


def entries_of(model, sink, *texts, thresholds=None):
    encoded = model.encode(texts)
    return [
        Entry(text, ("intent",), each, sink, thresholds=thresholds) for text, each in zip(texts, encoded, strict=True)
    ]


@pytest.fixture
def model():
    return GatedModel()


@pytest.fixture
def inbox():
    return Inbox()


@pytest.fixture
async def start():
    """Start batchers that are stopped, with their gates open, when the test ends."""
    started = []

    def begin(model, *, observer=None, breaker=None, deadline_s=5.0, **limits):
        given = BatchLimits(**{"token_budget": 1000, "max_in_flight": 1, **limits})
        terms = replace(given.terms, deadline_s=deadline_s)
        batcher = Batcher(model, given, terms=terms, observer=observer, breaker=breaker)
        batcher.start()
        started.append((model, batcher))
        return batcher

    yield begin
    for model, batcher in started:
        model.gate.set()
        await batcher.stop(5)
