"""Handlers get every record once, in order of its key where they ask for it, and cannot harm each other."""

import asyncio
import json
import time
from collections import defaultdict

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from test_dispatcher import DEAD, Broker

from murmura.runtime.agent.handler import Handler
from murmura.runtime.errors import Closed, RecordError
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.output.suspending import Suspending
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeEngine, FakeModel
from murmura.runtime.wire.message import Publish
from murmura.schemas.deadletter import DeadLetterReason
from murmura.schemas.manifest import TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=["refund", "praise"])
PARTITION = TopicPartition("turns", 0)


class Echo(Handler):
    """Notes what begins and ends for each key, and takes a few steps for each record."""

    name = "echo"
    topics = ("turns",)
    outputs = ("echoes", "state")
    ordering = "key"

    def __init__(self) -> None:
        self.open: dict[bytes, int] = defaultdict(int)
        self.most_open = 0
        self.seen: dict[bytes, list[int]] = defaultdict(list)
        self.partitions: frozenset[TopicPartition] = frozenset()
        self.restored = asyncio.Event()
        self.restored.set()
        self.unable = False
        self.cancels = False
        self.ended: list[int] = []
        self.given: list[int] = []
        self.first: list[Publish] = []

    async def assigned(self, partitions):
        await self.restored.wait()
        if self.cancels:
            raise asyncio.CancelledError
        if self.unable:
            raise OSError("no state")
        self.partitions = partitions
        return self.first

    def given_up(self, record):
        self.given.append(record.offset)

    def finished(self, record):
        self.ended.append(record.offset)

    async def handle(self, record, engine):
        value = json.loads(record.value)
        self.open[record.key] += 1
        self.most_open = max(self.most_open, self.open[record.key])
        for _ in range(value["steps"]):
            await asyncio.sleep(0)
        self.open[record.key] -= 1
        if value.get("bad"):
            raise RecordError(DeadLetterReason.INVALID, "bad")
        if value.get("crash"):
            raise ValueError("crash")
        if value.get("closed"):
            raise Closed("no")
        if value.get("essential"):
            return [Publish("state", {"n": value["n"]}, key=record.key, essential=True)]
        if value.get("frozen_s"):
            time.sleep(value["frozen_s"])
        if value.get("unsendable"):
            return [Publish("echoes", {"n": "\ud800"}, key=record.key)]
        self.seen[record.key].append(value["n"])
        return [Publish("echoes", {"n": value["n"]}, key=record.key)]


class Line:
    def __init__(self, handler: Echo | None = None, settings: Settings | None = None) -> None:
        self.broker = Broker()
        self.tracker: Tracker[TopicPartition] = Tracker()
        self.handler = handler or Echo()
        self.dispatcher = Dispatcher(
            FakeEngine(FakeModel([INTENT])),
            self.broker,
            self.tracker,
            Metrics(),
            routes={},
            dead_letters=DEAD,
            max_value_bytes=1000,
            handlers=[self.handler],
            suspending=Suspending.from_settings({}, [self.handler], settings),
        )
        self.offset = 0

    def receive(self, *values: tuple[bytes, dict], headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        records = [
            ConsumerRecord(
                "turns",
                0,
                self.offset + i,
                1,
                0,
                key,
                json.dumps({"steps": 0, "n": i, **value}).encode(),
                None,
                1,
                1,
                headers,
            )
            for i, (key, value) in enumerate(values)
        ]
        self.offset += len(values)
        self.dispatcher.receive({PARTITION: records})

    async def until_seen(self, key: bytes) -> None:
        async with asyncio.timeout(60):
            while key not in self.handler.seen:
                await asyncio.sleep(0)

    async def settle(self) -> None:
        async with asyncio.timeout(60):
            while self.dispatcher.has_work:
                await asyncio.sleep(0)

    @property
    def committable(self) -> int | None:
        return self.tracker.progress(PARTITION).committable


@runs(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 5)), min_size=1, max_size=40))
def test_a_keys_records_go_one_after_another_in_order(turns):
    async def scenario():
        line = Line()
        await line.dispatcher.assign([PARTITION])
        line.receive(*((key, {"steps": steps}) for key, steps in turns))
        await line.settle()
        assert line.handler.most_open == 1
        for numbers in line.handler.seen.values():
            assert numbers == sorted(numbers)
        assert sum(map(len, line.handler.seen.values())) == len(turns)
        assert line.committable == len(turns)

    asyncio.run(scenario())


async def test_a_slow_key_does_not_hold_others_up():
    line = Line()
    await line.dispatcher.assign([PARTITION])
    line.receive((b"slow", {"steps": 500}), (b"slow", {}), (b"quick", {}))
    for _ in range(50):
        await asyncio.sleep(0)
    assert line.handler.seen == {b"quick": [2]}
    await line.settle()
    assert line.handler.seen[b"slow"] == [0, 1]


async def test_a_keys_next_record_waits_for_the_acknowledgement_of_the_one_before():
    line = Line()
    await line.dispatcher.assign([PARTITION])
    line.broker.gate.clear()
    line.receive((b"a", {}), (b"a", {}))
    await line.until_seen(b"a")
    await asyncio.sleep(0.02)
    assert line.handler.seen[b"a"] == [0]
    line.broker.gate.set()
    await line.settle()
    assert line.handler.seen[b"a"] == [0, 1]


async def test_records_wait_until_the_handler_is_ready_for_their_partition():
    line = Line()
    line.handler.restored.clear()
    line.receive((b"a", {}))
    await line.dispatcher.assign([PARTITION])  # returns at once: the group is waiting
    await asyncio.sleep(0.02)
    assert not line.handler.seen
    line.handler.restored.set()
    await line.settle()
    assert line.handler.seen[b"a"] == [0]
    assert line.handler.partitions == {PARTITION}


async def test_getting_ready_ends_when_the_partitions_are_taken_away():
    line = Line()
    line.handler.restored.clear()
    line.receive((b"a", {}))
    await line.dispatcher.assign([PARTITION])
    await asyncio.sleep(0)
    assert await line.dispatcher.drain(1)
    line.handler.restored.set()
    await asyncio.sleep(0.02)
    assert not line.handler.partitions
    assert not line.handler.seen


async def test_a_handler_whose_partitions_are_taken_while_it_gets_ready_ends_nothing():
    line = Line()
    line.handler.restored.clear()
    await line.dispatcher.assign([PARTITION])
    await asyncio.sleep(0)
    assert await line.dispatcher.drain(1)
    await asyncio.sleep(0.01)
    assert not line.dispatcher.outbox.failure.done()


async def test_a_handler_hears_when_a_record_is_finished_and_not_before():
    line = Line()
    await line.dispatcher.assign([PARTITION])
    line.broker.gate.clear()
    line.receive((b"a", {}), (b"b", {"crash": True}))
    await line.until_seen(b"a")
    await asyncio.sleep(0.02)
    assert line.handler.seen[b"a"] == [0]
    assert not line.handler.ended
    line.broker.gate.set()
    await line.settle()
    await asyncio.sleep(0)
    assert sorted(line.handler.ended) == [0, 1]


@pytest.mark.parametrize(
    ("flaw", "reason"), [("bad", b"invalid"), ("crash", b"agent_failed"), ("unsendable", b"agent_failed")]
)
async def test_what_a_handler_refuses_or_fails_on_is_a_dead_letter_and_others_go_on(flaw, reason):
    line = Line()
    await line.dispatcher.assign([PARTITION])
    line.receive((b"a", {}), (b"a", {flaw: True}), (b"a", {}))
    await line.settle()
    assert line.handler.seen[b"a"] == [0, 2]
    letters = [message for message in line.broker.taken if message.topic == DEAD]
    assert [dict(letter.headers)["murmura_dl_reason"] for letter in letters] == [reason]
    assert line.committable == 3


async def test_after_a_drain_late_records_of_the_old_assignment_are_forgotten():
    line = Line()
    line.receive((b"a", {}))  # not assigned yet, so it waits
    await line.dispatcher.drain(1)
    line.tracker.revoke()
    await line.dispatcher.assign([PARTITION])
    await asyncio.sleep(0.02)
    assert not line.handler.seen
    line.offset = 0
    line.receive((b"a", {}))
    await line.settle()
    assert line.handler.seen[b"a"] == [0]


@pytest.mark.parametrize(
    ("headers", "more", "name"),
    [
        ((("murmura_request_id", b"r"), ("ce_id", b"c")), {"id": "b"}, b"r"),
        ((("ce_id", b"c"),), {"id": "b"}, b"c"),
        ((), {"id": "b"}, b"b"),
        ((), {"id": ""}, b"turns/0/0/1"),
        ((), {"id": 5}, b"turns/0/0/1"),
        ((), {}, b"turns/0/0/1"),
    ],
)
async def test_what_is_handed_on_names_the_request_by_header_body_or_place(headers, more, name):
    line = Line()
    await line.dispatcher.assign([PARTITION])
    line.receive((b"a", more), headers=headers)
    await line.settle()
    (message,) = line.broker.taken
    assert dict(message.headers)["murmura_request_id"] == name
