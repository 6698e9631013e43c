"""Requests that are too old on their way through the process, with a scripted model and a clock that is set by hand."""

import asyncio
import json
import random
from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord
from prometheus_client import generate_latest
from test_dispatcher import DEAD, INTENT, PARTITION, PLACES, Line
from test_suspending import FAST, Refusing, flaky, good, picky

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import Retry
from murmura.runtime.agent.agent import agent as make_agent
from murmura.runtime.flow.retries.retrying import Retrying
from murmura.runtime.settings.routing_rules import Rule
from murmura.runtime.testing.fakes import FakeModel, ManualClock
from murmura.runtime.wire.message import Publish
from murmura.schemas.envelope import DEADLINE
from murmura.schemas.result import Result

NOW = 1_767_606_000.0
AT_NINE, AT_TEN = b"2026-01-05T09:00:00Z", b"2026-01-05T10:00:00Z"
"""NOW is 09:40."""


def receive(line: Line, *records: tuple[str, float | None, bytes | None], key: bytes | None = None):
    """Give records to a line: text, age in seconds (None: it has no timestamp), deadline."""
    made = [
        ConsumerRecord(
            *("in", 0, line.offset + number, -1 if age_s is None else int((NOW - age_s) * 1000), 0, key),
            *(json.dumps({"text": text, "id": text}).encode(), None, -1, -1),
            () if deadline is None else ((DEADLINE, deadline),),
        )
        for number, (text, age_s, deadline) in enumerate(records)
    ]
    line.offset += len(made)
    return line.dispatcher.receive({PARTITION: made})


def statuses(line: Line, topic: str = "out") -> dict[str, str]:
    results = [json.loads(message.value) for message in line.broker.taken if message.topic == topic]
    assert len({result["request_id"] for result in results}) == len(results), "each is answered once"
    return {result["request_id"]: result["status"] for result in results}


def computed(line: Line) -> list[str]:
    return sorted(text for batch in line.model.batches for text in batch)


def counted(line: Line, agent: str, limit: str) -> float | None:
    labels = {"agent": agent, "limit": limit}
    return line.metrics.registry.get_sample_value("murmura_expired_answers_total", labels)


def aged(name: str = "classification", output: str | None = "out", age_s: float | None = 60.0, **more):
    return replace(classification, name=name, topics=("in",), output=output, max_age_s=age_s, **more)


async def test_what_is_too_old_is_answered_without_a_run_and_its_neighbours_as_ever():
    line = Line(FakeModel([INTENT]), aged(), clock=ManualClock(NOW))
    receive(line, ("old", 61, None), ("fresh", 59, None), ("late", 1, AT_NINE), ("in time", 1, AT_TEN))
    await line.settle()
    assert statuses(line) == {"old": "expired", "fresh": "ok", "late": "expired", "in time": "ok"}
    assert computed(line) == ["fresh", "in time"]
    assert line.committable == 4
    assert (counted(line, "classification", "max_age"), counted(line, "classification", "deadline")) == (1, 1)
    text = generate_latest(line.metrics.registry).decode()
    assert 'outcome="expired",topic="in"} 2.0' in text or 'topic="in",outcome="expired"} 2.0' in text
    assert 'murmura_end_to_end_seconds_count{agent="classification"} 2.0' in text, "no answer, no latency"


async def test_what_gets_too_old_while_it_waits_for_its_turn_is_not_computed():
    clock = ManualClock(NOW)
    line = Line(FakeModel([INTENT]), aged(), clock=clock)
    line.broker.taking.clear()
    receive(line, ("waiting", 50, None), ("younger", 20, None))
    await asyncio.sleep(0.01)
    clock.advance(20)
    line.broker.taking.set()
    await line.settle()
    assert statuses(line) == {"waiting": "expired", "younger": "ok"}
    assert computed(line) == ["younger"]


async def test_an_expired_result_differs_from_another_of_the_request_in_status_and_outputs_alone():
    async def answered(clock):
        line = Line(FakeModel([INTENT], version=3), aged(), clock=clock, aligned=lambda: frozenset({("in", "out")}))
        receive(line, ("text", 61, None), key=b"k")
        await line.settle()
        (message,) = line.broker.taken
        value = json.loads(message.value)
        headers = {name: raw for name, raw in message.headers if name != "ce_time"}
        return (message.topic, message.key, message.partition, headers), value

    (envelope, expired), (other_envelope, ok) = await answered(ManualClock(NOW)), await answered(None)
    assert envelope == other_envelope
    assert Result.model_validate(expired).status == "expired"
    assert (expired.pop("outputs"), expired.pop("status"), ok.pop("status")) == ({}, "expired", "ok")
    assert expired.pop("time").startswith("2026-01-05T09:40:00")
    del ok["outputs"], ok["time"]
    assert expired == ok


async def test_agents_that_share_a_topic_decide_each_by_its_own_age_and_nothing_runs_when_all_say_no():
    tolerant = replace(analysis, topics=("in",), output="tolerant", max_age_s=600)
    line = Line(FakeModel([INTENT, PLACES]), aged(), tolerant, clock=ManualClock(NOW))
    receive(line, ("new", 1, None), ("old", 300, None), ("older", 900, None), ("late", 300, AT_NINE))
    await line.settle()
    assert statuses(line) == {"new": "ok", "old": "expired", "older": "expired", "late": "expired"}
    assert statuses(line, "tolerant") == {"new": "ok", "old": "ok", "older": "expired", "late": "expired"}
    assert computed(line) == ["new", "old"]
    assert line.committable == 4
    assert counted(line, "analysis", "max_age") == counted(line, "analysis", "deadline") == 1


async def test_a_record_is_finished_when_all_of_its_parts_are_acknowledged():
    line = Line(FakeModel([INTENT]), aged("quick", "quick"), aged("patient", "patient", None), clock=ManualClock(NOW))
    line.broker.gate.clear()
    receive(line, ("old", 300, None))
    await asyncio.sleep(0.02)
    assert line.committable == 0
    line.broker.gate.set()
    await line.settle()
    assert line.committable == 1
    assert (statuses(line, "quick"), statuses(line, "patient")) == ({"old": "expired"}, {"old": "ok"})


async def test_no_hook_is_called_no_rule_applies_and_an_agent_without_an_output_says_nothing():
    asked = []

    def decide(request, prediction):
        asked.append(request.text)
        return prediction.outputs, Publish("by-code", request.value)

    rule = Rule(agent="routing", topic="by-rule", otherwise=True)
    agents = [
        aged("deciding", "one", decide=decide),
        aged("routing", "two", routing=(rule,)),
        aged("mute", None, decide=lambda request, prediction: Publish("aside", request.value)),
    ]
    line = Line(FakeModel([INTENT]), *agents, clock=ManualClock(NOW))
    receive(line, ("old", 300, None))
    await line.settle()
    assert sorted(message.topic for message in line.broker.taken) == ["one", "two"]
    assert asked == []
    assert line.committable == 1
    assert counted(line, "mute", "max_age") == 1


async def test_a_request_that_is_handed_on_keeps_its_deadline_unless_its_agent_sets_another():
    def decide(request, prediction):
        own = ((DEADLINE, b"2027-01-01T00:00:00Z"),)
        return Publish("next", request.value), Publish("later", request.value, headers=own)

    line = Line(FakeModel([INTENT]), aged(output=None, decide=decide), clock=ManualClock(NOW))
    receive(line, ("a", 1, AT_TEN), ("b", 1, None))
    await line.settle()
    found = [(message.topic, dict(message.headers).get(DEADLINE)) for message in line.broker.taken]
    own = b"2027-01-01T00:00:00Z"
    assert sorted(found, key=str) == [("later", own), ("later", own), ("next", None), ("next", AT_TEN)]


async def test_a_deadline_that_is_no_time_is_the_records_own_failure():
    line = Line(FakeModel([INTENT]), aged(), clock=ManualClock(NOW))
    receive(line, ("bad", 1, b"soon"), ("good", 1, None))
    await line.settle()
    assert line.reasons() == ["bad_header"]
    assert statuses(line) == {"good": "ok"}
    assert line.committable == 2


def asking(after_s: float | None = None):
    asked = []

    def decide(request, prediction):
        asked.append(request.text)
        raise Retry(after_s=after_s, why="not yet")

    return make_agent(topics=["in"], output="own", name="asking", max_age_s=60)(decide), asked


async def test_a_pause_ends_when_its_record_is_too_old_and_that_is_no_attempt():
    agent, asked = asking(after_s=3600)
    clock = ManualClock(NOW)
    retrying = Retrying({}, app="", topic=None, in_memory_s=7200, clock=clock)
    line = Line(FakeModel([INTENT]), agent, aged("calm", "calm", None), clock=clock, retrying=retrying)
    receive(line, ("again", 10, None))
    await line.settle()
    assert (asked, statuses(line, "calm"), line.committable) == (["again"], {"again": "ok"}, 0)
    clock.advance(50.0)
    retrying.process_due()
    await line.settle()
    assert line.committable == 0, "a moment before, it is not too old"
    clock.advance(0.01)
    retrying.process_due()
    await line.settle()
    assert statuses(line, "own") == {"again": "expired"}
    assert asked == ["again"]
    assert line.committable == 1


async def test_a_record_without_a_timestamp_is_tried_again():
    agent, asked = asking(after_s=0.0)
    clock = ManualClock(NOW)
    retrying = Retrying({}, app="", topic=None, clock=clock)
    line = Line(FakeModel([INTENT]), agent, clock=clock, retrying=retrying)
    receive(line, ("again", None, None))
    for _ in range(6):
        await line.settle()
        retrying.process_due()
    assert asked == ["again"] * 5
    assert line.reasons() == ["expired_retries"]


async def test_a_model_that_takes_the_place_of_another_answers_no_expired_part_again():
    line = Line(FakeModel([INTENT]), aged("quick", "quick"), aged("slow", "slow", None), clock=ManualClock(NOW))
    kept = []
    line.engine.submit = kept.extend  # it has them, and does not answer
    receive(line, ("old", 300, None))
    async with asyncio.timeout(60):
        while not kept:
            await asyncio.sleep(0)
    del line.engine.submit
    newer = FakeModel([INTENT], version=1)
    line.engine.swap(newer)
    line.dispatcher.reroute({"in": replace(line.dispatcher.versions.current.routes["in"])})
    line.dispatcher.take_back(kept)
    await line.settle()
    assert (statuses(line, "quick"), statuses(line, "slow")) == ({"old": "expired"}, {"old": "ok"})
    assert line.committable == 1


# -- beside suspended agents -----------------------------------------------------------------------------------------


async def test_an_answer_that_its_topic_does_not_take_waits_and_is_still_expired_when_the_topic_is_back():
    line = Refusing(aged("quick", "own"), good(), clock=ManualClock(NOW))
    line.missing = {"own"}
    receive(line, *((f"{number}", 300, None) for number in range(30)))
    await line.until(lambda: line.suspended and line.suspended["quick"]["waiting"] == 30)
    await line.settle()
    assert len(line.results("out")) == 30
    await asyncio.sleep(0.2)
    assert line.suspended, "what is refused shows that the topic is not back"
    line.missing = set()
    await line.until(lambda: line.committable == 30)
    assert set(statuses(line, "own").values()) == {"expired"}
    receive(line, ("fresh", 1, None))
    await line.until(lambda: line.suspended == {})
    await line.until(lambda: line.committable == 31)
    assert statuses(line, "own")["fresh"] == "ok"
    assert line.reasons() == []


@pytest.mark.parametrize("mends", [True, False])
async def test_records_that_are_too_old_show_nothing_of_a_suspended_agent_which_the_next_record_probes(mends):
    broken, clock = [True], ManualClock(NOW)
    failing = replace(picky(flaky(lambda request: broken[0])), max_age_s=60)
    line = Refusing(failing, options={"picky": FAST | {"failing_latest": 10, "probe_pause_s": 0.2}}, clock=clock)
    receive(line, *((f"{number}", 1, None) for number in range(50)))
    await line.until(lambda: line.suspended)
    await line.settle()
    letters = len(line.reasons())
    assert letters == 5
    clock.advance(120)
    await line.until(lambda: line.committable == 50)
    assert set(statuses(line, "own").values()) == {"expired"}
    assert line.suspended, "nobody has asked it since"
    broken[0] = not mends
    receive(line, ("next", -120, None), ("after", -120, None))
    if mends:
        await line.until(lambda: line.committable == 52)
        assert line.suspended == {}
        assert {name: status for name, status in statuses(line, "own").items() if status == "ok"} == {
            "next": "ok",
            "after": "ok",
        }
    else:
        await asyncio.sleep(0.3)
        assert line.suspended["picky"]["waiting"] == 2
    assert len(line.reasons()) == letters


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_ages_fails_and_is_tried_again_each_agents_part_ends_once(seed):
    chance, clock = random.Random(seed), ManualClock(NOW)
    broken = [False]

    def decide(request, prediction):
        if chance.random() < 0.3:
            raise Retry(after_s=chance.random() * 20)
        if broken[0]:
            raise ValueError
        return prediction.outputs

    agents = [
        aged("a", "one", 30.0),
        aged("b", "two", 30.0),
        replace(picky(decide, "c", "three"), max_age_s=90.0),
        aged("d", "four", None),
    ]
    options = {name: {"probe_pause_s": 0.02, "failing_latest": 8, "max_waiting": 25} for name in "abcd"}
    retrying = Retrying({}, app="", topic=None, clock=clock, uniform=chance.random)
    line = Refusing(*agents, options=options, clock=clock, retrying=retrying)
    delivered = 0
    for _ in range(40):
        line.missing = {topic for topic in ("one", "two", "three", "four") if chance.random() < 0.3}
        broken[0] = chance.random() < 0.3
        count = chance.randint(0, 5)
        ages = [clock() - NOW for _ in range(count)]
        deadlines = [chance.choice([None, None, AT_NINE, AT_TEN]) for _ in range(count)]
        receive(line, *((f"{delivered + n}", -ages[n], deadlines[n]) for n in range(count)))
        delivered += count
        clock.advance(chance.random() * 10)
        retrying.process_due()
        await asyncio.sleep(chance.random() * 0.03)
    line.missing, broken[0] = set(), False
    async with asyncio.timeout(60):
        while line.committable != delivered:
            receive(line, (f"{delivered}", -(clock() - NOW), None))  # what the next probe may need
            delivered += 1
            clock.advance(5.0)
            retrying.process_due()
            await asyncio.sleep(0.05)
    await line.settle()
    everyone = {f"{number}" for number in range(delivered)}
    letters = {dict(m.headers)["murmura_dl_offset"].decode() for m in line.broker.taken if m.topic == DEAD}
    assert len(letters) == len(line.reasons())
    assert statuses(line, "one").keys() == statuses(line, "two").keys() == statuses(line, "four").keys() == everyone
    assert statuses(line, "three").keys() | letters == everyone
    assert not statuses(line, "three").keys() & letters
    expired = [status for topic in ("one", "two", "three", "four") for status in statuses(line, topic).values()]
    limits = [counted(line, name, limit) or 0 for name in "abcd" for limit in ("max_age", "deadline")]
    assert expired.count("expired") == sum(limits) > 0
    assert not line.dispatcher.outbox.failure.done()
