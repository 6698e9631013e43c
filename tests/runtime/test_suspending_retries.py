"""Suspended agents and retries: a topic of retries that refuses records, and agents whose retries all end."""

import asyncio

from test_suspending import FAST, PARTITION, Refusing, good, picky

from murmura.runtime.agent.agent import Retry
from murmura.runtime.flow.retries.retrying import Retrying
from murmura.runtime.settings.settings import Settings


async def test_while_the_topic_of_retries_refuses_records_parts_wait_within_the_limits_and_none_becomes_a_dead_letter():
    options = {"bad": FAST | {"max_waiting": 25}, "good": FAST}
    line = Refusing(
        good(),
        good("bad", "own"),
        options=options,
        retrying=Retrying({}, app="test", topic="retries", clock=lambda: 1.0),
    )
    line.missing = {"own", "retries"}
    full = {}
    for number in range(40):
        full |= line.receive(str(number)) or {}
        await asyncio.sleep(0.005)
    assert full == {PARTITION: None}, "the partition is paused"
    await line.until(lambda: len(line.results("out")) == 40)
    await line.until(lambda: line.suspended["bad"]["waiting"] + line.sent_to_retries() == 40)
    await asyncio.sleep(0.1)
    assert line.committable == 0
    line.missing = {"own"}
    await line.until(lambda: line.sent_to_retries() > 0)
    line.missing = set()
    await line.until(lambda: line.committable == 40)
    assert sorted(line.results("own") + line.offsets_of("retries")) == list(range(40))
    assert line.reasons() == []


async def test_an_agent_whose_retries_are_refused_is_suspended_and_asked_again():
    asked = []

    def decide(request, prediction):
        asked.append(request.text)
        if len(asked) < 4:
            raise Retry(after_s=300)
        return prediction.outputs

    line = Refusing(good(), picky(decide), retrying=Retrying({}, app="test", topic="retries", clock=lambda: 1.0))
    line.missing = {"retries"}
    line.receive("one")
    await line.until(lambda: "picky" in line.suspended)
    assert line.results("out") == [0]
    await line.until(lambda: line.committable == 1)
    assert (line.results("own"), line.sent_to_retries(), line.reasons()) == ([0], 0, [])
    assert line.suspended == {}


async def test_an_agent_whose_dependency_is_down_is_suspended_instead_of_ending_all_its_retries():
    down = [True]

    def decide(request, prediction):
        if down[0]:
            raise Retry(after_s=0.0)
        return prediction.outputs

    options = {"picky": FAST | {"failing_latest": 8, "retries": {"attempts": 2}}, "good": FAST}
    settings = Settings(agents=options)
    agents = [good(), picky(decide)]
    line = Refusing(*agents, options=options, retrying=Retrying.from_settings(agents, settings, {}))
    waking = asyncio.create_task(line.dispatcher.retrying.run())
    line.receive(*map(str, range(40)))
    await line.until(lambda: line.suspended)
    await asyncio.sleep(0.5)
    assert line.suspended, "a probe of records that have no attempt left fails"
    assert set(line.reasons()) == {"expired_retries"}
    letters = len(line.reasons())
    assert letters <= 8
    down[0] = False
    await line.until(lambda: line.committable == 40)
    assert len(line.results("own")) + len(line.reasons()) == 40
    waking.cancel()
