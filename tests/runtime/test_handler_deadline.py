"""A handler that hangs, is cancelled or runs past the end of its assignment costs its own record and nothing else."""

import asyncio
from contextlib import suppress

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition
from test_dispatcher import DEAD, Broker
from test_handlers import INTENT, PARTITION, Line
from test_handlers_unfinished import until

from murmura.runtime.agent.agent import agent
from murmura.runtime.agent.handler import Handler
from murmura.runtime.agent.routes import configure_agents, make_routes
from murmura.runtime.errors import SetupError
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.output.bounds import RECORD_BYTES, Bounds
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeEngine, FakeModel
from murmura.runtime.wire.message import Publish


@agent(topics=["in"], tasks=["intent"], output="out")
def answering(request, prediction):
    return prediction.outputs


class Slow(Handler):
    """Does what a record's value names."""

    name, topics, outputs, ordering = "slow", ("turns",), ("echoes",), "key"
    timeout_s = 0.1

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.other: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(60))
        self.left_behind: asyncio.Task[object] | None = None

    async def handle(self, record, engine):
        match record.value:
            case b"hang":
                await asyncio.sleep(60)
            case b"swallow":
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
            case b"cancelled":
                self.other.cancel()
                await self.other
            case b"gate":
                await self.gate.wait()
            case b"model":
                await asyncio.gather(engine.predict("one"), engine.predict("two"))
            case b"others":
                with engine.untimed():
                    await asyncio.sleep(0.3)
            case b"long texts":
                await engine.predict("one " * 600)
                await engine.predict("two " * 600)
            case b"model and hang":
                await engine.predict("one")
                await asyncio.sleep(60)
            case b"own timeout":
                raise TimeoutError
            case b"leaves":
                self.left_behind = asyncio.create_task(engine.predict("one"))
        return [Publish("echoes", record.value or b"", key=record.key)]


class SlowLine(Line):
    def __init__(self, **options) -> None:
        self.broker = Broker()
        self.tracker = Tracker()
        self.handler = Slow()
        self.engine = FakeEngine(FakeModel([INTENT]))
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(
            self.engine, self.broker, self.tracker, self.metrics, routes={}, dead_letters=DEAD, max_value_bytes=10_000,
            handlers=[self.handler], **options,
        )  # fmt: skip
        self.offset = 0

    def send(self, *values: bytes, key: bytes = b"a"):
        records = [
            ConsumerRecord(*PARTITION, self.offset + i, 1, 0, key, value, None, 1, 1, ())
            for i, value in enumerate(values)
        ]
        self.offset += len(values)
        return self.dispatcher.receive({PARTITION: records})

    def letters(self) -> list[str]:
        return [dict(m.headers)["murmura_dl_message"].decode() for m in self.broker.taken if m.topic == DEAD]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"hang", "slow ran past its deadline of 0.1 s"),
        (b"swallow", "slow ran past its deadline of 0.1 s"),
        (b"model and hang", "slow ran past its deadline of 0.1 s"),
        (b"cancelled", "slow was cancelled while it handled the record"),
        (b"own timeout", "slow raised TimeoutError"),
    ],
)
async def test_a_record_that_its_handler_does_not_finish_is_a_dead_letter_and_its_key_goes_on(value, message):
    line = SlowLine()
    await line.dispatcher.assign([PARTITION])
    line.send(value, b"next")
    await line.settle()
    assert line.letters() == [message]
    assert [m.value for m in line.broker.taken if m.topic == "echoes"] == [b"next"]
    assert line.committable == 2
    assert await line.dispatcher.drain(1)


async def test_the_deadline_stands_still_while_the_model_or_others_are_waited_for(monkeypatch):
    line = SlowLine()
    predict = line.engine.predict

    async def slow_predict(*args, **options):
        await asyncio.sleep(0.3)
        return await predict(*args, **options)

    monkeypatch.setattr(line.engine, "predict", slow_predict)
    await line.dispatcher.assign([PARTITION])
    line.send(b"model", b"leaves")
    line.send(b"others", key=b"b")
    await line.settle()
    assert sorted(m.value for m in line.broker.taken) == [b"leaves", b"model", b"others"]
    await line.handler.left_behind
    line.send(b"model and hang")
    await line.settle()
    assert line.letters() == ["slow ran past its deadline of 0.1 s"]


async def test_a_record_is_counted_once_where_the_model_read_only_parts_of_its_texts():
    line = SlowLine()
    await line.dispatcher.assign([PARTITION])
    line.send(b"model", b"long texts")
    await line.settle()
    assert line.metrics.registry.get_sample_value("murmura_truncated_total", {"topic": PARTITION.topic}) == 1


async def test_after_a_drain_that_ran_out_of_time_nothing_of_the_old_assignment_is_sent():
    line = SlowLine()
    line.handler.timeout_s = 60
    await line.dispatcher.assign([PARTITION])
    line.send(b"gate")
    await asyncio.sleep(0.01)
    assert not await line.dispatcher.drain(0.05)
    line.tracker.revoke()
    line.handler.gate.set()  # before the next assignment, when another member may have the partition
    await asyncio.sleep(0.05)
    assert line.broker.taken == []
    await line.dispatcher.assign([PARTITION])
    line.offset = 0
    line.send(b"gate")
    await line.settle()
    assert [m.value for m in line.broker.taken] == [b"gate"]
    await until(line, lambda: line.dispatcher._under_way.bytes == 0)


async def test_a_handlers_records_are_bounded_in_bytes_and_what_does_not_fit_is_given_back():
    line = SlowLine(bounds=Bounds(partition_bytes=3 * (RECORD_BYTES + 1000)))
    assert line.send(*[b"x" * 999] * 10) == {PARTITION: 3}  # not ready yet, so they wait
    reopened = []
    line.dispatcher.on_reopened = reopened.extend
    await line.dispatcher.assign([PARTITION])
    await line.settle()
    assert reopened == [PARTITION]
    assert line.committable == 3


async def test_a_handlers_records_under_way_are_bounded_in_bytes():
    line = SlowLine(bounds=Bounds(process_bytes=16 * RECORD_BYTES))
    line.handler.ordering, line.handler.timeout_s = "none", 60
    await line.dispatcher.assign([PARTITION])
    line.send(*[b"gate"] * 10)
    await until(line, lambda: len(line.dispatcher._runners[0]._tasks) == 4)
    await asyncio.sleep(0.01)
    assert len(line.dispatcher._runners[0]._tasks) == 4
    line.handler.gate.set()
    await line.settle()
    assert line.committable == 10


async def test_behind_a_record_that_hangs_a_partition_is_paused():
    line = SlowLine(bounds=Bounds(uncommitted=5))
    line.handler.ordering, line.handler.timeout_s = "none", 60
    await line.dispatcher.assign([PARTITION])
    assert line.send(b"gate", *[b"x"] * 6) == {PARTITION: 5}
    reopened = []
    line.dispatcher.on_reopened = reopened.extend
    await until(line, lambda: len(line.broker.taken) == 4)
    assert reopened == []
    line.handler.gate.set()
    await line.settle()
    await until(line, lambda: reopened == [PARTITION])


def test_a_handlers_deadline_is_a_setting_and_an_agent_has_none():
    plain = agent(topics=["in"], name="plain")(lambda request, prediction: None)

    class Reader(Handler):
        name, topics = "reader", ("turns",)

        async def handle(self, record, engine):
            return ()

    (reader,) = configure_agents(Settings(agents={"reader": {"timeout_s": 2.5}}), [Reader()])
    assert isinstance(reader, Handler)
    assert (reader.timeout_s, Reader.timeout_s) == (2.5, 60.0)
    with pytest.raises(SetupError, match=r"agents\.plain\.timeout_s: plain decides at once"):
        configure_agents(Settings(agents={"plain": {"timeout_s": 2.5}}), [plain])


async def test_an_agents_records_go_on_when_a_handler_frees_the_bytes_that_they_wait_for():
    line = SlowLine(bounds=Bounds(process_bytes=8 * RECORD_BYTES))
    line.handler.ordering, line.handler.timeout_s = "none", 60
    line.dispatcher.reroute(make_routes([answering], line.engine.model.manifest, "test"))
    feeding = asyncio.create_task(line.dispatcher.run())
    await line.dispatcher.assign([PARTITION, TopicPartition("in", 0)])
    line.send(b"gate", b"gate")
    await asyncio.sleep(0.01)
    line.dispatcher.receive(
        {TopicPartition("in", 0): [ConsumerRecord("in", 0, 0, 1, 0, None, b'{"text":"a"}', None, 1, 1, ())]}
    )
    await asyncio.sleep(0.02)
    assert line.broker.taken == []
    line.handler.gate.set()
    await until(line, lambda: [m.topic for m in line.broker.taken].count("out") == 1)
    feeding.cancel()
