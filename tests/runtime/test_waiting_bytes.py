"""Everything that waits counts for the bytes of the process: in queues, for suspended agents, for another attempt."""

import asyncio
import time
from dataclasses import replace
from datetime import datetime

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition
from test_dispatcher import DEAD, INTENT, Broker
from test_handlers_unfinished import until
from test_handlers_waiting import Asking

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.errors import Retry, TopicRefused
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.flow.retries.agent_retries import AgentRetries
from murmura.runtime.flow.retries.retrying import Retrying
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.output.bounds import MIB, Bounds, held_bytes
from murmura.runtime.output.suspending import Suspending
from murmura.runtime.settings.retry_policy import RetryPolicy
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeEngine, FakeModel
from murmura.runtime.wire.retry_record import Coordinates, retry_message
from murmura.runtime.wire.retry_record import Retry as RetryHeaders

INPUTS = [TopicPartition("in", number) for number in range(3)]
STEPS = [TopicPartition("retries", number) for number in range(3)]
TURNS = TopicPartition("turns", 0)
BOUNDS = Bounds(process_bytes=4 * MIB)
REQUEST = b'{"text":"a","attachment":"%s"}' % (b"x" * 50_000)


def good(name: str = "good", output: str = "out"):
    return replace(classification, name=name, topics=("in",), output=output)


def asking(pause_s: float):
    def decide(request, prediction):
        raise Retry(pause_s)

    return agent(topics=["in"], tasks=["intent"], output="own", name="asking")(decide)


class Line:
    """Agents and a handler on a process of 4 MiB, with a log that delivers from the first record that was not taken."""

    def __init__(self, *agents, topic: str | None = "retries", handlers=(), options=None) -> None:
        self.broker, self.tracker, self.missing = Broker(), Tracker(), set()
        self.broker.publish = self.publish
        self.most_bytes = 0
        self.next = dict.fromkeys([*INPUTS, *STEPS, TURNS], 0)
        self.paused: set[TopicPartition] = set()
        engine = FakeEngine(FakeModel([INTENT]))
        routes = make_routes(agents, engine.model.manifest, "test")
        settings = Settings(agents=options or {each.name: {"probe_pause_s": 30} for each in agents})
        names = [each.name for each in (*agents, *handlers)]
        policy = AgentRetries(RetryPolicy(attempts=3, deadline_s=1e12))
        self.dispatcher = Dispatcher(
            engine, self.broker, self.tracker, Metrics(), routes=routes, dead_letters=DEAD, max_value_bytes=MIB,
            handlers=handlers, suspending=Suspending.from_settings(routes, handlers, settings), bounds=BOUNDS,
            retrying=Retrying(dict.fromkeys(names, policy), app="test", topic=topic),
        )  # fmt: skip
        self.dispatcher.on_reopened = self.paused.difference_update

    async def start(self) -> None:
        loops = (self.dispatcher, self.dispatcher.suspending, self.dispatcher.retrying)
        self.tasks = [asyncio.create_task(each.run()) for each in loops]
        await self.dispatcher.assign([*INPUTS, *STEPS, TURNS])

    async def publish(self, messages):
        await asyncio.sleep(0)
        refused = [TopicRefused("it is not there") if message.topic in self.missing else None for message in messages]
        self.broker.taken += [message for message, error in zip(messages, refused, strict=True) if error is None]
        return refused

    def fetch(self, partition: TopicPartition, end: int, make, at_once: int = 5) -> None:
        """Deliver the next records of a log up to `end`, unless its partition is paused."""
        if partition not in self.paused and self.next[partition] < end:
            first = self.next[partition]
            last = min(first + at_once, end)
            full = self.dispatcher.receive({partition: [make(partition, offset) for offset in range(first, last)]})
            self.next[partition] = last
            for paused, left_at in full.items():
                self.paused.add(paused)
                self.next[paused] = last if left_at is None else left_at
        self.most_bytes = max(self.most_bytes, self.bytes)

    @property
    def bytes(self) -> int:
        """The bytes of all records in memory, each counted once."""
        parts = self.dispatcher
        waiting = sum(parts._queue.bytes_in(p) + parts._held_bytes(p) for p in (*INPUTS, *STEPS))
        handled = sum(runner.held_bytes(TURNS) for runner in parts._runners)
        fetched = sum(held_bytes(each.record) for queue in parts.retrying._intake._queues.values() for each in queue)
        return waiting + handled + fetched + parts._under_way.bytes

    def sent(self, topic: str) -> list:
        return [message for message in self.broker.taken if message.topic == topic]


@pytest.fixture
async def make_line():
    lines: list[Line] = []

    async def make(*agents, **options) -> Line:
        lines.append(line := Line(*agents, **options))
        await line.start()
        return line

    yield make
    for line in lines:
        assert await line.dispatcher.drain(1)
        await until(line, lambda line=line: line.bytes == 0)
        for task in line.tasks:
            task.cancel()


def request(partition: TopicPartition, offset: int, value: bytes = REQUEST) -> ConsumerRecord:
    return ConsumerRecord(*partition, offset, 1, 0, b"k%d" % offset, value, None, 1, 1, ())


def retry_of(topic: str, due: float, number: int = 0):
    """Make records of the topic of retries for originals of a topic's partition."""

    def make(partition: TopicPartition, offset: int, original_offset: int | None = None) -> ConsumerRecord:
        at = offset if original_offset is None else original_offset
        original = request(TopicPartition(topic, number), at)
        headers = RetryHeaders("test", Coordinates(topic, number, at, 1), None, due, 1)
        message = retry_message(original, headers, "retries")
        stamp = round(time.time() * 1000)
        return ConsumerRecord(
            *partition, offset, stamp, 0, message.key, message.value, None, 1, 1, tuple(message.headers)
        )

    return make


async def fetch_all(line: Line, partitions, end: int, make, *, patience_s: float = 60) -> None:
    """Deliver records until all were taken, or for `patience_s`."""
    ends_at = asyncio.get_running_loop().time() + patience_s
    while any(line.next[p] < end for p in partitions) and asyncio.get_running_loop().time() < ends_at:
        for partition in partitions:
            line.fetch(partition, end, make)
        await asyncio.sleep(0.002)


async def test_parts_of_several_suspended_agents_stay_within_the_bytes_of_the_process(make_line):
    bad = [good(f"bad{number}", f"missing{number}") for number in range(3)]
    line = await make_line(good(), *bad)
    line.missing = {each.output for each in bad}
    await fetch_all(line, INPUTS, 100, request)
    await until(line, lambda: len(line.sent("out")) == 300)
    waiting = sum(found["waiting"] for found in line.dispatcher.suspending.describe().values())
    await until(line, lambda: len(line.sent("retries")) + waiting == 900)
    assert len(line.dispatcher.suspending.suspended) == 3
    assert line.most_bytes <= BOUNDS.process_bytes + held_bytes(request(INPUTS[0], 0))


@pytest.mark.parametrize(
    ("suspended_s", "step", "pause_s"), [(0, 0, 60), (599, 0, 60), (601, 1, 600), (3601, 2, 3600), (1e6, 2, 3600)]
)
async def test_what_exceeds_the_bytes_goes_to_a_step_that_is_no_longer_than_the_suspension(
    make_line, suspended_s, step, pause_s
):
    line = await make_line(good(), good("bad", "missing"))
    line.missing = {"missing"}
    await fetch_all(line, INPUTS, 1, request)
    await until(line, lambda: line.dispatcher.suspending.suspended)
    line.dispatcher.suspending._clock = lambda: time.monotonic() + suspended_s
    line.dispatcher.suspending._agents["bad"]._probe_at = float("inf")
    await fetch_all(line, INPUTS, 30, request)
    await until(line, lambda: len(line.sent("retries")) > 50)
    moved = line.sent("retries")[-1]
    assert moved.partition == step
    due = datetime.fromisoformat(dict(moved.headers)["murmura_not_before"].decode()).timestamp()
    assert due - time.time() == pytest.approx(pause_s, abs=30)


async def test_without_a_topic_of_retries_partitions_pause_at_the_bytes_of_suspended_agents(make_line):
    line = await make_line(good(), good("bad", "missing"), topic=None)
    line.missing = {"missing"}
    await fetch_all(line, INPUTS, 100, request, patience_s=0.5)
    assert line.paused >= {*INPUTS}
    assert line.most_bytes <= BOUNDS.process_bytes + held_bytes(request(INPUTS[0], 0))


async def test_retries_in_memory_stay_within_the_bytes_of_the_process(make_line):
    line = await make_line(good(), asking(20))
    await fetch_all(line, INPUTS, 100, request)
    await until(line, lambda: len(line.sent("out")) == 300)
    kept = line.dispatcher.retrying.in_memory()
    assert kept > 10
    await until(line, lambda: len(line.sent("retries")) == 300 - kept)
    assert line.most_bytes <= BOUNDS.process_bytes + held_bytes(request(INPUTS[0], 0))


async def test_the_rests_of_pauses_wait_within_the_bytes_of_the_process(make_line):
    line = await make_line(good())
    make = retry_of("in", time.time() + 20)
    line.dispatcher.retrying._steps_s = line.dispatcher.retrying._intake._steps_s = (0.0,)
    await fetch_all(line, STEPS, 100, make, patience_s=1)
    assert line.dispatcher.retrying.in_memory() >= 3
    assert line.sent("out") == []
    assert line.most_bytes <= BOUNDS.process_bytes + held_bytes(request(INPUTS[0], 0))


@pytest.mark.parametrize("ordering", ["none", "key"])
async def test_retries_of_a_handler_wait_for_their_time_and_within_the_bytes_of_the_process(make_line, ordering):
    handler = Asking(ordering, times=0)
    line = await make_line(good(), handlers=[handler])
    due = time.time() + 0.5
    line.dispatcher.retrying._steps_s = line.dispatcher.retrying._intake._steps_s = (0.0,)
    await fetch_all(line, STEPS[:1], 100, retry_of("turns", due), patience_s=0.3)
    assert handler.asked == {}
    await fetch_all(line, STEPS[:1], 100, retry_of("turns", due))
    sent = len(line.sent("retries"))  # those go round again
    await until(line, lambda: len(line.sent("echoes")) == 100 - sent)
    assert line.most_bytes <= BOUNDS.process_bytes + held_bytes(request(INPUTS[0], 0))


async def test_a_second_retry_counts_for_the_partition_from_which_it_was_read(make_line):
    line = await make_line(asking(20))
    await fetch_all(line, STEPS[:1], 3, retry_of("in", time.time() - 1))
    await until(line, lambda: line.dispatcher.retrying.in_memory() == 3)
    assert line.dispatcher.retrying.held_bytes(STEPS[0]) > 3 * len(REQUEST)
    assert line.dispatcher.retrying.held_bytes(INPUTS[0]) == 0


async def test_a_record_that_waits_for_several_suspended_agents_waits_on_purpose_once(make_line):
    line = await make_line(good(), good("bad", "missing"), good("worse", "missing too"))
    line.missing = {"missing", "missing too"}
    await fetch_all(line, INPUTS[:1], 2, request)
    await until(line, lambda: len(line.sent("out")) == 2 and len(line.dispatcher.suspending.suspended) == 2)
    await until(line, lambda: line.dispatcher.idle_records(INPUTS[0]) == 2)
    assert line.dispatcher.idle_records(INPUTS[1]) == 0
    assert line.tracker.progress(INPUTS[0]).unfinished == 2
    line.missing |= {"out"}
    await fetch_all(line, INPUTS[:1], 3, request)
    await until(line, lambda: line.dispatcher.idle_records(INPUTS[0]) is None)


async def test_one_record_fits_whatever_its_size_beside_what_waits_for_a_suspended_agent(make_line):
    line = await make_line(good(), good("bad", "missing"))
    line.missing = {"missing"}
    large = b'{"text":"a","attachment":"%s"}' % (b"x" * 900_000)
    await fetch_all(line, INPUTS, 3, lambda partition, offset: request(partition, offset, large))
    await until(line, lambda: len(line.sent("out")) == 9)


async def test_retries_for_suspended_agents_hold_back_no_others_of_their_partition(make_line):
    handler = Asking("none", times=0)
    line = await make_line(good(), good("bad", "missing"), handlers=[handler])
    line.missing = {"missing", "echoes"}
    line.dispatcher.retrying._steps_s = line.dispatcher.retrying._intake._steps_s = (60.0,)
    due = time.time() - 100
    makers = [retry_of("in", due), retry_of("turns", due)]
    await fetch_all(line, STEPS[:1], 80, lambda partition, offset: makers[offset % 2](partition, offset))
    await until(line, lambda: len(line.sent("out")) == 40)
    assert line.dispatcher.suspending.suspended == {"bad", "asking"}
    assert line.most_bytes <= BOUNDS.process_bytes + held_bytes(request(INPUTS[0], 0))


async def test_retries_of_records_with_the_same_offset_are_each_tried_once(make_line):
    errors: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    handler = Asking("none", times=0)
    line = await make_line(good(), handlers=[handler])
    line.missing = {"echoes"}
    makers = [retry_of("turns", time.time() - 1, number) for number in range(3)]
    line.dispatcher._under_way.begin(1 << 40)  # one record at a time
    for offset in range(3):
        line.fetch(STEPS[0], offset + 1, lambda partition, offset: makers[offset](partition, offset, 7))
        await asyncio.sleep(0.1)
    line.missing = set()
    line.dispatcher.suspending._agents["asking"]._probe_at = 0
    await until(line, lambda: len(line.sent("echoes")) == 3)
    assert line.tracker.progress(STEPS[0]).committable == 3
    line.dispatcher._under_way.end(1 << 40)
    assert errors == []
