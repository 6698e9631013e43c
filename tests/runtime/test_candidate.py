"""A candidate beside the current version, from the records to their results."""

import asyncio
import json
from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.batching.engine import Engine
from murmura.runtime.errors import SetupError
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.release.slot import ModelSlot
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.result import Result

INTENT = TaskSpec(name="intent", kind="classification", labels=["refund", "praise"])
MOOD = TaskSpec(name="mood", kind="classification", labels=["good", "bad"])
AGENT = replace(classification, topics=("in",), output="out", tasks=("intent",))
PARTITION = TopicPartition("in", 0)


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


def model(version, *tasks, **options):
    made = FakeModel(tasks or [INTENT], version=version, **options)
    made.pass_time = None
    return made


class Process:
    """A dispatcher, an engine and a slot; a candidate answers the requests whose id begins with `b`."""

    def __init__(self, engine):
        self.engine, self.broker, self.tracker = engine, Broker(), Tracker()
        self.dispatcher = Dispatcher(
            engine,
            self.broker,
            self.tracker,
            Metrics(),
            routes=make_routes([AGENT], engine.model.manifest, "test"),
            dead_letters="dead",
            max_value_bytes=1000,
        )
        self.slot = ModelSlot(Settings(app="test"), [AGENT], engine, self.dispatcher)
        self.faults, self.offset = [], 0
        self.feeding = asyncio.create_task(self.dispatcher.run())

    def put_candidate(self, candidate):
        self.slot.put_candidate(candidate, lambda unit: unit.startswith("b"), self.faults.append)

    async def answer(self, **texts):
        """Return version and variant of each result by request id."""
        self.broker.taken.clear()
        values = [json.dumps({"id": name, "text": text}).encode() for name, text in texts.items()]
        records = [
            ConsumerRecord("in", 0, self.offset + n, 1000, 0, None, value, None, -1, len(value), ())
            for n, value in enumerate(values)
        ]
        self.offset += len(records)
        self.dispatcher.receive({PARTITION: records})
        async with asyncio.timeout(60):
            while self.dispatcher.has_work:
                await asyncio.sleep(0.001)
        assert self.tracker.progress(PARTITION).committable == self.offset
        assert {message.topic for message in self.broker.taken} == {"out"}, "no dead letter"
        results = [Result.model_validate_json(message.value) for message in self.broker.taken]
        return {result.request_id: (result.model.version, result.model.variant) for result in results}


@pytest.fixture
async def process():
    engine = Engine(model(1), token_budget=1000, max_in_flight=1)
    await engine.start()
    made = Process(engine)
    yield made
    made.feeding.cancel()
    await engine.stop(5)


async def test_each_request_is_answered_by_the_version_that_is_chosen_for_it_and_the_result_says_as_what(process):
    process.put_candidate(model(2))
    assert await process.answer(a1="x", b1="y", a2="z") == {
        "a1": (1, "current"),
        "b1": (2, "candidate"),
        "a2": (1, "current"),
    }
    process.slot.drop_candidate()
    assert await process.answer(b2="x") == {"b2": (1, "current")}


async def test_a_candidate_that_takes_over_is_the_current_version_and_no_candidate_is_left(process):
    candidate = model(2)
    process.put_candidate(candidate)
    process.slot.put(candidate)
    assert await process.answer(a1="x", b1="y") == {"a1": (2, "current"), "b1": (2, "current")}
    assert (process.dispatcher.versions.candidate, process.engine.candidate) == (None, None)


async def test_the_requests_of_a_candidate_that_fails_are_answered_by_the_current_version(process):
    candidate = model(2)
    process.put_candidate(candidate)
    candidate.device_works = False
    assert await process.answer(a1="x", b1="y", b2="z") == dict.fromkeys(("a1", "b1", "b2"), (1, "current"))
    assert len(process.faults) == 1
    assert process.engine.trouble is None
    assert process.slot.choose("b3").model is process.slot.model
    process.put_candidate(model(3))
    assert await process.answer(b4="x") == {"b4": (3, "candidate")}


async def test_a_request_that_only_the_candidate_fails_on_is_answered_by_the_current_version(process):
    process.put_candidate(model(2, broken=["bad"]))
    assert await process.answer(b1="bad", b2="good") == {"b1": (1, "current"), "b2": (2, "candidate")}
    assert process.faults == []


async def test_a_candidate_that_an_agent_cannot_work_with_changes_nothing(process):
    with pytest.raises(SetupError, match="task intent is not one of"):
        process.put_candidate(model(2, MOOD))
    assert process.engine.candidate is None
    assert await process.answer(b1="x") == {"b1": (1, "current")}


async def test_a_second_candidate_is_refused(process):
    process.put_candidate(model(2))
    with pytest.raises(ValueError, match="drop it first"):
        process.put_candidate(model(3))
    assert await process.answer(b1="x") == {"b1": (2, "candidate")}


async def test_what_was_meant_for_a_candidate_that_is_dropped_while_others_are_tokenised_is_the_current_versions(
    process,
):
    process.put_candidate(model(2))
    encode = process.engine.encode

    async def drop_and_encode(texts, chosen, windows):
        process.slot.drop_candidate()
        return await encode(texts, chosen, windows)

    process.engine.encode = drop_and_encode
    assert await process.answer(a1="x", b1="y") == dict.fromkeys(("a1", "b1"), (1, "current"))


async def test_a_text_that_is_tokenised_while_its_version_is_replaced_goes_to_the_new_one(process):
    encode, newer = process.engine.encode, model(2)

    async def encode_and_swap(texts, chosen, windows):
        encoded = await encode(texts, chosen, windows)
        if process.slot.model is not newer:
            process.slot.put(newer)
        return encoded

    process.engine.encode = encode_and_swap
    assert await process.answer(a1="x") == {"a1": (2, "current")}


async def test_a_candidate_that_cannot_tokenise_is_dropped_and_the_process_goes_on(process):
    candidate, lost = model(2), []
    process.engine.on_lost = lost.append
    process.put_candidate(candidate)
    candidate.encode = lambda texts: 1 / 0
    assert await process.answer(a1="x", b1="y") == dict.fromkeys(("a1", "b1"), (1, "current"))
    assert (len(process.faults), lost, process.slot.choose("b1").model) == (1, [], process.slot.model)


async def test_a_text_that_only_the_candidate_cannot_tokenise_is_answered_by_the_current_version(process):
    candidate = model(2)
    process.put_candidate(candidate)
    encode = candidate.encode
    candidate.encode = lambda texts: 1 / 0 if "bad" in texts else encode(texts)
    assert await process.answer(b1="bad", b2="good") == {"b1": (1, "current"), "b2": (2, "candidate")}
    assert process.faults == []


async def test_a_swap_while_the_device_fails_leaves_a_candidate_its_requests(process):
    process.put_candidate(model(2))
    before = process.slot.model
    before.device_works, before.run_s = False, 0.05  # meanwhile the candidate's text is queued
    answering = asyncio.create_task(process.answer(a1="x", b1="y"))
    async with asyncio.timeout(60):
        while process.engine.trouble is None:
            await asyncio.sleep(0.001)
    process.slot.put(model(3))
    assert await answering == {"a1": (3, "current"), "b1": (2, "candidate")}
