"""A handler whose output is refused, or that fails on most records, waits with its records instead of losing them."""

import asyncio
import json
import time

import pytest
from test_dispatcher import DEAD
from test_handlers import PARTITION, Echo
from test_handlers import Line as _Line

from murmura.runtime.errors import TopicRefused
from murmura.runtime.settings.settings import Settings
from murmura.runtime.wire.message import Publish


class Frail(Echo):
    """`broken`: it raises on everything."""

    def __init__(self):
        super().__init__()
        self.broken = False

    async def handle(self, record, engine):
        if self.broken:
            raise ConnectionError
        return await super().handle(record, engine)


class Line(_Line):
    """`missing`: topics that are not there."""

    def __init__(self, **more):
        echo = {"probe_pause_s": 0.05, "failing_latest": 4, **more}
        super().__init__(Frail(), Settings(agents={"echo": echo}, deadletters={"per_s": 50}))
        self.missing = set()
        self.broker.publish = self.publish
        self.looking = asyncio.create_task(self.dispatcher.suspending.run())

    async def publish(self, messages):
        await asyncio.sleep(0)
        refused = [TopicRefused("it is not there") if message.topic in self.missing else None for message in messages]
        self.broker.taken += [message for message, error in zip(messages, refused, strict=True) if error is None]
        return refused

    async def until(self, condition):
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.005)

    def sent(self, topic):
        return [message for message in self.broker.taken if message.topic == topic]

    @property
    def suspended(self):
        return self.dispatcher.suspending.describe()


def broken(*arguments):
    raise ZeroDivisionError


@pytest.fixture
async def line():
    line = Line()
    await line.dispatcher.assign([PARTITION])
    return line


@pytest.mark.parametrize(("flaw", "why"), [("unable", "OSError at"), ("cancels", "it was cancelled")])
async def test_a_handler_that_cannot_get_ready_is_suspended_and_asked_again_until_it_can(flaw, why):
    line = Line()
    setattr(line.handler, flaw, True)
    line.receive((b"a", {}))
    await line.dispatcher.assign([PARTITION])
    await line.until(lambda: line.suspended)
    assert why in line.suspended["echo"]["why"]
    assert "no state" not in line.suspended["echo"]["why"], "what somebody else's error says may quote a text"
    await asyncio.sleep(0.3)
    assert not line.handler.seen
    assert not line.dispatcher.has_work
    setattr(line.handler, flaw, False)
    await line.until(lambda: line.committable == 1)
    assert (line.suspended, line.dispatcher.outbox.failure.done()) == ({}, False)


async def test_a_handler_that_cannot_get_ready_gives_way_when_its_partitions_are_taken():
    line = Line()
    line.handler.unable = True
    await line.dispatcher.assign([PARTITION])
    await line.until(lambda: line.suspended)
    assert await line.dispatcher.drain(1)
    line.handler.unable = False
    await line.dispatcher.assign([PARTITION])
    line.receive((b"a", {}))
    await line.until(lambda: line.committable == 1)
    assert line.suspended == {}


async def test_a_hook_that_raises_costs_no_record_and_nobody_else_and_the_handler_goes_on(line):
    line.handler.finished = broken
    for done in (1, 2):
        line.receive((b"a", {}))
        await line.until(lambda done=done: line.committable == done)
        await line.until(lambda: line.suspended)
        assert "its hook broken failed: ZeroDivisionError at" in line.suspended["echo"]["why"]
    assert not line.dispatcher.outbox.failure.done()


async def test_a_handler_that_cannot_give_up_its_partitions_harms_nobody_and_begins_the_next_ones_anew(line):
    line.receive((b"a", {}))
    await line.until(lambda: line.committable == 1)
    line.handler.revoked = broken
    assert await line.dispatcher.drain(1)
    assert "its hook broken failed: ZeroDivisionError at" in line.suspended["echo"]["why"]
    await line.dispatcher.assign([PARTITION])
    line.receive((b"a", {}))
    await line.until(lambda: line.committable == 2)
    assert (line.suspended, line.dispatcher.outbox.failure.done()) == ({}, False)


async def test_what_an_output_refuses_is_sent_when_it_is_back_and_the_handler_is_asked_once(line):
    line.missing = {"echoes"}
    line.receive((b"a", {}), (b"a", {}), (b"b", {}))
    await line.until(lambda: line.suspended)
    await line.until(lambda: not line.dispatcher.has_work)
    assert line.handler.seen[b"a"] == [0]
    line.missing = set()
    await line.until(lambda: line.committable == 3)
    assert [json.loads(m.value)["n"] for m in line.sent("echoes") if m.key == b"a"] == [0, 1]
    assert line.handler.seen == {b"a": [0, 1], b"b": [2]}
    assert (line.sent(DEAD), line.suspended) == ([], {})


async def test_what_is_essential_waits_for_its_topic_too(line):
    line.missing = {"state"}
    line.receive((b"a", {"essential": 1}))
    await line.until(lambda: line.suspended)
    line.missing = set()
    await line.until(lambda: line.committable == 1)
    assert not line.dispatcher.outbox.failure.done()


async def test_a_handler_that_fails_on_everything_is_asked_again_about_what_waits(line):
    line.handler.broken = True
    line.receive(*[(b"k%d" % n, {}) for n in range(8)])
    await line.until(lambda: line.suspended)
    await line.until(lambda: len(line.sent(DEAD)) == 2)
    await asyncio.sleep(0.2)
    assert len(line.sent(DEAD)) == 2
    assert not line.dispatcher.has_work, "what waits is no work that stands still"
    line.handler.broken = False
    await line.until(lambda: line.committable == 8)
    assert len(line.sent("echoes")) == 6
    assert len(line.sent(DEAD)) == 2


async def test_what_waits_is_given_up_with_its_partition(line):
    line.missing = {"echoes"}
    line.receive((b"a", {}))
    await line.until(lambda: line.suspended)
    assert await line.dispatcher.drain(1)
    await line.until(lambda: line.handler.given == [0])
    line.missing = set()
    await asyncio.sleep(0.2)
    assert line.sent("echoes") == []


async def test_a_partition_is_paused_while_its_handler_is_suspended_and_read_on_afterwards(line):
    reopened = []
    line.dispatcher.on_reopened = reopened.extend
    line.missing = {"echoes"}
    line.receive((b"a", {}))
    await line.until(lambda: line.suspended)
    line.receive((b"b", {}))
    assert line.handler.seen[b"b"] == []
    line.missing = set()
    await line.until(lambda: line.committable == 2)
    assert reopened == [PARTITION]


@pytest.mark.parametrize("broken", [True, False])
async def test_what_has_waited_for_longer_than_its_handler_gives_it_becomes_dead_letters(broken):
    line = Line(give_up_s=0.3)
    await line.dispatcher.assign([PARTITION])
    line.handler.broken = broken
    line.missing = {"echoes"}
    line.receive(*[(b"k%d" % n, {}) for n in range(6)])
    await line.until(lambda: line.suspended)
    await line.until(lambda: line.committable == 6)
    assert len(line.sent(DEAD)) == 6
    assert line.sent("echoes") == []


async def test_what_a_handler_publishes_to_get_ready_waits_for_its_topic():
    line = Line()
    line.handler.first = [Publish("state", b"x", key=b"k")]
    line.missing = {"state"}
    await line.dispatcher.assign([PARTITION])
    line.receive((b"a", {}))
    await line.until(lambda: line.suspended)
    line.missing = set()
    await line.until(lambda: line.committable == 1)
    assert [m.value for m in line.sent("state")] == [b"x"]
    assert not line.dispatcher.outbox.failure.done()


async def test_a_handler_that_waits_to_get_ready_does_not_hold_a_drain():
    line = Line()
    line.handler.first = [Publish("state", b"x", key=b"k")]
    line.missing = {"state"}
    await line.dispatcher.assign([PARTITION])
    await line.until(lambda: line.suspended)
    assert await line.dispatcher.drain(1)
    await asyncio.sleep(0.2)
    assert not line.dispatcher.outbox.failure.done()
    line.missing = set()
    await line.dispatcher.assign([PARTITION])
    line.receive((b"a", {}))
    await line.until(lambda: line.committable == 1)


async def test_what_waited_is_not_sent_while_it_is_in_doubt_whose_partition_it_is():
    line = Line()
    line.handler.freeze_s = 0.5
    await line.dispatcher.assign([PARTITION])
    line.missing = {"echoes"}
    line.receive((b"a", {}))
    await line.until(lambda: line.suspended)
    await asyncio.sleep(0.05)
    time.sleep(0.8)
    line.missing = set()
    await asyncio.sleep(0.2)
    assert line.sent("echoes") == []
    assert await line.dispatcher.drain(1)
    await line.until(lambda: line.handler.given == [0])
    assert line.sent("echoes") == []
