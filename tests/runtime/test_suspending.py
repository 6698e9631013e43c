"""Agents that cannot answer beside others that can, with a scripted model and a publisher that refuses topics."""

import asyncio
import json
import random
from dataclasses import replace

import pytest
from test_dispatcher import DEAD, INTENT, PARTITION, Line

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.errors import TopicRefused
from murmura.runtime.output.overflow import Overflow
from murmura.runtime.output.suspending import Suspending
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel
from murmura.runtime.wire.message import Publish

FAST = {"probe_pause_s": 0.05}


class Refusing(Line):
    """`missing`: topics that are not there."""

    def __init__(self, *agents, options=None, per_s=10.0, model=None, **more):
        model = model or FakeModel([INTENT])
        settings = Settings(agents=options or {each.name: FAST for each in agents}, deadletters={"per_s": per_s})
        suspending = Suspending.from_settings(make_routes(agents, model.manifest, "test"), (), settings)
        super().__init__(model, *agents, suspending=suspending, **more)
        self.missing = set()
        self.broker.publish = self.publish
        self.looking = asyncio.create_task(self.dispatcher.suspending.run())

    async def publish(self, messages):
        await asyncio.sleep(0)
        taken = [message.topic not in self.missing for message in messages]
        self.broker.taken += [message for message, is_taken in zip(messages, taken, strict=True) if is_taken]
        return [None if is_taken else TopicRefused("it is not there") for is_taken in taken]

    def offsets_of(self, topic):
        return [int(dict(m.headers)["murmura_original_offset"]) for m in self.broker.taken if m.topic == topic]

    def sent_to_retries(self):
        return len(self.offsets_of("retries"))

    def results(self, topic):
        return [json.loads(m.value)["source"]["offset"] for m in self.broker.taken if m.topic == topic]

    async def until(self, condition):
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.005)

    @property
    def suspended(self):
        return self.dispatcher.suspending.describe()


def good(name="good", output="out"):
    return replace(classification, name=name, topics=("in",), output=output)


def picky(decide, name="picky", output="own"):
    return replace(agent(topics=["in"], tasks=["intent"], output=output, name=name)(decide))


async def test_only_the_agent_whose_topic_is_missing_waits_and_all_is_answered_once_it_is_back():
    line = Refusing(good(), good("bad", "own"))
    line.missing = {"own"}
    line.receive(*map(str, range(5)))
    await line.until(lambda: len(line.results("out")) == 5)
    line.receive(*map(str, range(5)))
    await line.until(lambda: len(line.results("out")) == 10)
    await line.settle()
    assert line.committable == 0
    assert line.suspended["bad"]["waiting"] == 10
    assert not line.dispatcher.has_work, "what waits for a suspended agent is no work that stands still"
    await asyncio.sleep(0.2)
    line.missing = set()
    await line.until(lambda: line.committable == 10)
    assert sorted(line.results("own")) == list(range(10))
    assert sorted(line.results("out")) == list(range(10)), "what was answered is not answered again"
    assert line.reasons() == []
    assert line.suspended == {}


async def test_two_suspended_agents_of_one_record_finish_it_together():
    line = Refusing(good("a", "one"), good("b", "two"))
    line.missing = {"one", "two"}
    line.receive("x", "y")
    await line.until(lambda: len(line.suspended) == 2)
    line.missing = {"two"}
    await line.until(lambda: "a" not in line.suspended)
    await line.settle()
    assert line.committable == 0
    line.missing = set()
    await line.until(lambda: line.committable == 2)
    assert (sorted(line.results("one")), sorted(line.results("two"))) == ([0, 1], [0, 1])


async def test_a_probe_of_a_record_that_can_be_encoded_no_more_comes_to_an_end():
    line = Refusing(good())
    line.missing = {"out"}
    line.receive("one")
    await line.until(lambda: line.suspended)
    encode = line.model.encode
    line.model.encode = lambda texts: 1 / 0 if "one" in texts else encode(texts)
    line.missing = set()
    await line.until(lambda: line.committable == 1)
    await line.until(lambda: not line.suspended)
    assert line.reasons() == ["invalid"]


async def test_an_agent_alone_on_its_topic_pauses_its_partitions_and_computes_nothing():
    line = Refusing(good())
    reopened = []
    line.dispatcher.on_reopened = reopened.extend
    line.missing = {"out"}
    line.receive("one")
    await line.until(lambda: line.suspended)
    runs = len(line.model.batches)
    assert line.receive("two") == {PARTITION: None}
    await asyncio.sleep(0.02)
    assert not any("two" in batch for batch in line.model.batches[runs:])
    line.missing = set()
    await line.until(lambda: line.committable == 2)
    assert reopened == [PARTITION]
    assert line.results("out") == [0, 1]


async def test_what_waits_for_an_agent_is_bounded_by_pausing_the_partition():
    options = {"bad": FAST | {"max_waiting": 3, "probe_pause_s": 30}, "good": FAST}
    line = Refusing(good(), good("bad", "own"), options=options)
    line.missing = {"own"}
    line.receive("1", "2")
    await line.until(lambda: line.suspended and line.suspended["bad"]["waiting"] == 2)
    assert line.receive("3") == {}
    await line.until(lambda: line.suspended["bad"]["waiting"] == 3)
    assert line.receive("4") == {PARTITION: None}


async def test_a_topic_that_a_decision_merely_names_is_the_records_own_failure():
    line = Refusing(good(), picky(lambda request, prediction: Publish("elsewhere", b"x")))
    line.missing = {"elsewhere"}
    line.receive("one", "two")
    await line.settle()
    assert line.reasons() == ["agent_failed"] * 2
    assert line.suspended == {}
    assert line.committable == 2


def flaky(fails):
    def decide(request, prediction):
        if fails(request):
            raise ValueError
        return prediction.outputs

    return decide


async def test_an_agent_that_fails_on_most_records_is_suspended_and_what_fails_still_is_dead_lettered_when_it_resumes():
    broken = [True]
    options = {"picky": FAST | {"failing_latest": 10}, "good": FAST}
    agent_failing = picky(flaky(lambda request: broken[0] or request.text == "bad"))
    line = Refusing(good(), agent_failing, options=options)
    line.receive(*["fine"] * 20, "bad")
    await line.until(lambda: line.suspended)
    await line.settle()
    assert len(line.reasons()) == 5
    assert sorted(line.results("out")) == list(range(21))
    await asyncio.sleep(0.2)
    assert len(line.reasons()) == 5, "no probe that fails makes a dead letter"
    broken[0] = False
    await line.until(lambda: line.committable == 21)
    assert len(line.results("own")) == 15
    assert line.reasons() == ["agent_failed"] * 6
    assert line.suspended == {}


async def test_an_agent_alone_that_fails_on_all_that_waits_is_probed_with_the_records_behind_too():
    line = Refusing(
        picky(flaky(lambda request: request.text == "bad")), options={"picky": FAST | {"failing_latest": 2}}
    )
    line.dispatcher.on_reopened = lambda partitions: line.receive(*["fine"] * 20)
    line.receive(*["bad"] * 5)
    await line.until(lambda: line.suspended)
    assert line.receive("bad") == {PARTITION: None}
    await line.until(lambda: line.committable == 26)
    assert sorted(line.results("own")) == list(range(6, 26))
    assert line.reasons() == ["agent_failed"] * 6
    assert line.suspended == {}


async def test_a_model_that_fails_on_everything_suspends_those_who_asked_it():
    model = FakeModel([INTENT], broken={"poison"})
    line = Refusing(good(), options={"good": FAST | {"failing_latest": 4, "probe_pause_s": 30}}, model=model)
    line.receive(*["poison"] * 10)
    await line.until(lambda: line.suspended)
    await line.settle()
    assert line.reasons() == ["model_failed"] * 2
    assert line.suspended["good"]["waiting"] == 8
    assert line.committable == 2


async def test_what_has_waited_for_longer_than_its_agent_gives_it_becomes_dead_letters_at_the_rate_allowed():
    line = Refusing(good(), options={"good": FAST | {"give_up_s": 0.3}}, per_s=20)
    line.missing = {"out"}
    line.receive(*map(str, range(12)))
    await line.until(lambda: line.suspended)
    await asyncio.sleep(0.2)
    assert line.reasons() == []
    await line.until(line.reasons)
    began = asyncio.get_running_loop().time()
    await line.until(lambda: len(line.reasons()) == 12)
    assert asyncio.get_running_loop().time() - began < 2
    await line.settle()
    assert line.committable == 12
    assert line.results("out") == []


async def test_what_waits_is_forgotten_with_its_partitions_and_the_next_record_probes():
    line = Refusing(good(), good("bad", "own"))
    line.missing = {"own"}
    line.receive("one")
    await line.until(lambda: line.suspended)
    assert await line.dispatcher.drain(1)
    line.tracker.revoke()
    line.missing = set()
    await line.until(lambda: not line.suspended)
    line.offset = 0
    line.receive("one")
    await line.until(lambda: line.committable == 1)
    assert line.results("own") == [0]


async def test_a_declared_topic_that_is_gone_before_its_partitions_were_ever_asked_for_suspends_too():
    line = Refusing(good(output="nowhere"), aligned=lambda: frozenset({("in", "nowhere")}))
    line.missing = {"nowhere"}
    line.receive("one")
    await line.until(lambda: line.suspended)
    assert line.reasons() == []


async def test_what_finds_no_room_is_moved_where_that_is_possible_and_its_record_is_finished_there():
    options = {"bad": FAST | {"max_waiting": 2, "probe_pause_s": 30}, "good": FAST}
    line = Refusing(good(), good("bad", "own"), options=options)
    moved = []

    def move(part, agent, suspended_s):
        moved.append((part.record.offset, agent))
        part.progress.finish(part.record.offset)

    line.dispatcher.suspending.overflow = Overflow("retries", move)
    line.missing = {"own"}
    assert line.receive("1", "2", "3", "4") == {}
    await line.until(lambda: len(moved) == 2)
    await line.settle()
    assert moved == [(2, "bad"), (3, "bad")]
    assert line.suspended["bad"]["waiting"] == 2
    assert line.receive("5") == {}
    await line.until(lambda: len(line.results("out")) == 5)
    assert line.tracker.progress(PARTITION).unfinished == 2


@pytest.mark.parametrize("texts", [("fine", "fine", "bad"), ("fine", "bad", "bad")], ids=["some bad", "most bad"])
@pytest.mark.parametrize("seed", range(4))
async def test_whatever_topics_come_and_go_each_agents_part_of_each_record_ends_once_as_a_result_or_a_dead_letter(
    seed, texts
):
    """An agent for which only records wait that it fails on stays suspended until others come: fine ones come here."""
    chance = random.Random(seed)
    broken = {"c": False}
    agents = [
        good("a", "one"),
        good("b", "two"),
        picky(flaky(lambda request: broken["c"] or request.text == "bad"), "c", "three"),
    ]
    options = {name: {"probe_pause_s": 0.02, "failing_latest": 8, "max_waiting": 25} for name in "abc"}
    line = Refusing(*agents, options=options)
    delivered = 0
    for _ in range(40):
        line.missing = {topic for topic in ("one", "two", "three") if chance.random() < 0.4}
        broken["c"] = chance.random() < 0.3
        count = chance.randint(0, 5)
        line.receive(*[chance.choice(texts) for _ in range(count)])
        delivered += count
        await asyncio.sleep(chance.random() * 0.03)
    line.missing, broken["c"] = set(), False
    async with asyncio.timeout(60):
        while line.committable < delivered:
            if line.suspended:
                line.receive(*["fine"] * 10)
                delivered += 10
            await asyncio.sleep(0.05)
    await line.settle()
    everyone = list(range(delivered))
    assert sorted(line.results("one")) == everyone
    assert sorted(line.results("two")) == everyone
    letters = [int(dict(m.headers)["murmura_dl_offset"]) for m in line.broker.taken if m.topic == DEAD]
    assert sorted([*line.results("three"), *letters]) == everyone
    assert line.suspended == {}
    assert not line.dispatcher.outbox.failure.done()
