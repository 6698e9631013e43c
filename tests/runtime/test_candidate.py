"""A candidate beside the current version, from the records to their results."""

import asyncio
import gc
import json
import time
import weakref
from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.batching.engine import Engine
from murmura.runtime.errors import Retry, SetupError
from murmura.runtime.experiments.unit_assignment import Assignment
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.model.pass_time import PassTime
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.observe.version_metrics import VersionLabels
from murmura.runtime.output.reviews import Reviews
from murmura.runtime.release.slot import ModelSlot
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel
from murmura.schemas.manifest import TaskSpec
from murmura.schemas.result import Result
from murmura.schemas.review import Review

INTENT = TaskSpec(name="intent", kind="classification", labels=["refund", "praise"])
MOOD = TaskSpec(name="mood", kind="classification", labels=["good", "bad"])
AGENT = replace(classification, topics=("in",), output="out", tasks=("intent",))
PARTITION = TopicPartition("in", 0)
ON_ATTEMPT = {}
"""What happens before the second agent asks for another attempt, by text; each once."""


def decide_at_second_attempt(request, prediction):
    if (happens := ON_ATTEMPT.pop(request.text, None)) is not None:
        happens()
        raise Retry(0.0)
    return prediction.outputs


SECOND = replace(AGENT, name="second", decide=decide_at_second_attempt)


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


class ByLetter(Assignment):
    """The candidate answers the requests whose id begins with `b`."""

    def choose_side(self, key, request_id, metadata):
        return "candidate" if request_id.startswith("b") else "control"


class Process:
    """A dispatcher, an engine and a slot."""

    def __init__(self, engine, *agents, reviews=None):
        self.engine, self.broker, self.tracker = engine, Broker(), Tracker()
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(
            engine,
            self.broker,
            self.tracker,
            self.metrics,
            routes=make_routes(agents, engine.model.manifest, "test"),
            dead_letters="dead",
            max_value_bytes=1000,
            reviews=reviews,
        )
        self.slot = ModelSlot(Settings(app="test"), agents, engine, self.dispatcher)
        self.faults, self.offset = [], 0
        self.running = [asyncio.create_task(self.dispatcher.run()), asyncio.create_task(self.dispatcher.retrying.run())]

    def put_candidate(self, candidate, assignment=None):
        self.slot.put_candidate(candidate, assignment or ByLetter("spring", "request", 0.5), self.faults.append)

    async def answer(self, **texts):
        """Return version and variant of each result by request id."""
        results = await self.send(*({"id": name, "text": text} for name, text in texts.items()))
        return {result.request_id: (result.model.version, result.model.variant) for result in results}

    async def send(self, *requests):
        """Return the results of requests."""
        self.broker.taken.clear()
        values = [json.dumps(request).encode() for request in requests]
        now = int(time.time() * 1000)
        records = [
            ConsumerRecord("in", 0, self.offset + n, now, 0, None, value, None, -1, len(value), ())
            for n, value in enumerate(values)
        ]
        self.offset += len(records)
        self.dispatcher.receive({PARTITION: records})
        async with asyncio.timeout(60):
            while self.tracker.progress(PARTITION).committable != self.offset:
                await asyncio.sleep(0.001)
        assert {message.topic for message in self.broker.taken} <= {"out", "reviews"}, "no dead letter"
        return self.taken("out", Result)

    def taken(self, topic, kind):
        """Return what was published to a topic."""
        return [kind.model_validate_json(message.value) for message in self.broker.taken if message.topic == topic]


@pytest.fixture
async def process():
    engine = Engine(model(1), token_budget=1000, max_in_flight=1)
    await engine.start()
    reviews = Reviews("reviews", "test", per_minute=0, margin=0.2, band=0.1, random_share=1.0)
    made = Process(engine, AGENT, SECOND, reviews=reviews)
    yield made
    for task in made.running:
        task.cancel()
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


async def test_results_say_how_slow_their_pass_was_while_a_candidate_answers_a_share(process):
    candidate = model(2)
    candidate.pass_time = PassTime(0.0, 1e-6, 1e-6)
    process.put_candidate(candidate)
    results = await process.send({"id": "a1", "text": "x"}, {"id": "b1", "text": "y"})
    assert {result.model.version for result in results if result.pass_ratio is not None} == {1, 2}
    process.slot.drop_candidate()
    assert {result.pass_ratio for result in await process.send({"id": "a2", "text": "x"})} == {None}


async def test_one_answer_of_each_drawn_unit_is_asked_about_whichever_version_gave_it(process):
    process.put_candidate(model(2), ByLetter("spring", "metadata.shop", 0.5))
    asked = [{"id": f"{side}{n}", "text": "x", "metadata": {"shop": side}} for n in range(3) for side in "ab"]
    results = await process.send(*asked, {"id": "a9", "text": "x"})
    reviews = process.taken("reviews", Review)
    assert len(results) == 14
    assert {(each.model.version, each.experiment, each.sampling_rate) for each in reviews} == {
        (1, "spring", 1.0),
        (2, "spring", 1.0),
    }
    assert len(reviews) == 2
    assert {each.prediction_id for each in reviews} <= {each.prediction_id for each in results}
    process.slot.drop_candidate()
    await process.send(*({**each, "id": each["id"] + "x"} for each in asked))
    assert process.taken("reviews", Review) == []


async def test_figures_are_counted_by_version_and_what_a_candidate_fails_on_is_one_of_them(process):
    versions = {name: VersionLabels("fake", number, name) for name, number in (("current", "1"), ("candidate", "2"))}
    process.metrics.versions.load(versions.values())
    process.put_candidate(model(2, broken={"bad"}))
    await process.answer(a1="x", b1="y", b2="bad")

    def count(metric, variant, **labels):
        return process.metrics.registry.get_sample_value(metric, versions[variant]._asdict() | labels)

    records = "murmura_version_records_total"
    assert [count(records, name, outcome="answered") for name in versions] == [4, 2]  # two agents
    assert [count(records, name, outcome="failed") for name in versions] == [0, 1]
    answers = {"task": "intent", "outcome": "labelled"}
    assert [count("murmura_version_answers_total", name, **answers) for name in versions] == [2, 1]
    assert [count("murmura_version_end_to_end_seconds_count", name) for name in versions] == [4, 2]
    assert count("murmura_version_pass_ratio_count", "current") == 2


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
    assert process.dispatcher.versions.choose("candidate").model is process.slot.model
    process.put_candidate(model(3))
    assert await process.answer(b4="x") == {"b4": (3, "candidate")}


async def test_a_request_that_only_the_candidate_fails_on_is_answered_by_the_current_version(process):
    process.put_candidate(model(2, broken=["bad"]))
    assert await process.answer(b1="bad", b2="good") == {"b1": (1, "current"), "b2": (2, "candidate")}
    assert process.faults == []
    assert {each.request_id for each in process.taken("out", Result) if each.candidate_failed} == {"b1"}


async def test_an_agent_that_fails_on_a_candidates_answer_is_asked_about_that_of_the_current_version(process):
    process.put_candidate(model(2))
    ON_ATTEMPT["odd"] = lambda: 1 / 0
    results = await process.send({"id": "b1", "text": "odd"})
    assert {(each.agent, each.model.version, each.candidate_failed) for each in results} == {
        ("classification", 2, False),
        ("second", 1, True),
    }
    assert not process.dispatcher.has_work


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
    assert (len(process.faults), lost, process.dispatcher.versions.choose("candidate").model) == (
        1,
        [],
        process.slot.model,
    )


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


async def test_all_agents_answer_a_record_by_one_version_and_those_of_a_unit_by_the_same(process):
    process.put_candidate(model(2), Assignment("spring", "metadata.customer", 0.5))
    requests = [
        {"id": f"{customer}-{n}", "text": "x", "metadata": {"customer": customer}}
        for n in range(2)
        for customer in ("customer-1", "customer-2")  # their places are 0.56 and 0.46
    ]
    results = await process.send(*requests, {"id": "of nobody", "text": "x"})
    assert {(each.request_id, each.agent): (each.model.version, each.model.variant) for each in results} == {
        (name, agent): (2, "candidate") if "customer-2" in name else (1, "current")
        for name in [each["id"] for each in requests] + ["of nobody"]
        for agent in ("classification", "second")
    }


async def test_a_raised_share_moves_no_record_between_two_attempts(process):
    process.put_candidate(model(2), Assignment("spring", "request", 0.5))
    ON_ATTEMPT["again"] = lambda: process.slot.assign(Assignment("spring", "request", 0.9))
    assert await process.answer(**{"customer-1": "again"}) == {"customer-1": (1, "current")}
    assert ON_ATTEMPT == {}
    assert await process.answer(**{"customer-1": "x"}) == {"customer-1": (2, "candidate")}


@pytest.mark.parametrize("end", ["drop", "fail", "replace"])
async def test_a_candidate_that_has_left_is_freed(process, end):
    candidate = model(2)
    process.put_candidate(candidate)
    left = weakref.ref(candidate)
    assert (await process.answer(b1="x"))["b1"] == (2, "candidate")
    if end == "drop":
        process.slot.drop_candidate()
    elif end == "fail":
        candidate.device_works = False
        await process.answer(b2="x")
    else:
        process.slot.put(candidate)
        process.slot.put(model(3))
    del candidate
    await process.answer(a1="x", b3="y")
    process.faults.clear()  # their traceback holds the frames of the run
    gc.collect()
    assert left() is None
