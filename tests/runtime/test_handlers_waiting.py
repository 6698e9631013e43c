"""A handler's records that wait, for their suspended handler or during a pause, hold back nobody else."""

import asyncio

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition
from test_dispatcher import DEAD, Broker
from test_handlers import INTENT, PARTITION
from test_handlers_unfinished import until

from murmura.runtime.agent.agent import agent
from murmura.runtime.agent.handler import Handler
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.errors import Retry, TopicRefused
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.flow.retries.agent_retries import AgentRetries
from murmura.runtime.flow.retries.retrying import Retrying
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.output.bounds import MIB, Bounds
from murmura.runtime.output.suspending import Suspending
from murmura.runtime.settings.retry_policy import RetryPolicy
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeEngine, FakeModel
from murmura.runtime.wire.message import Publish

IN, RETRIES = TopicPartition("in", 0), TopicPartition("murmura.retries", 0)
TURNS = [TopicPartition("turns", number) for number in range(3)]
VALUE = b"v" * 200_000


@agent(topics=["in"], tasks=["intent"], output="out")
def answering(request, prediction):
    return prediction.outputs


class Asking(Handler):
    """Asks for another attempt at each record `times` times."""

    name, topics, outputs = "asking", ("turns",), ("echoes",)

    def __init__(self, ordering: str, pause_s: float = 60.0, times: int = 1) -> None:
        self.ordering, self.pause_s, self.times = ordering, pause_s, times  # type: ignore[assignment]
        self.asked: dict[tuple[int, int], int] = {}
        self.open = self.most_open = 0

    async def handle(self, record, engine):
        place = record.partition, record.offset
        asked = self.asked[place] = self.asked.get(place, 0) + 1
        if record.key != b"good" and asked <= self.times:
            raise Retry(self.pause_s)
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        await asyncio.sleep(0.002)
        self.open -= 1
        return [Publish("echoes", b"%d" % record.offset, key=record.key)]


class Line:
    """A handler beside an agent. `missing`: topics that refuse records."""

    def __init__(self, handler: Handler, *, topic: str | None = None, bounds: Bounds | None = None) -> None:
        self.broker, self.tracker, self.offset = Broker(), Tracker(), 0
        self.missing: set[str] = set()
        self.broker.publish = self.publish
        engine = FakeEngine(FakeModel([INTENT]))
        routes = make_routes([answering], engine.model.manifest, "test")
        settings = Settings(agents={handler.name: {"probe_pause_s": 0.05}})
        policy = AgentRetries(RetryPolicy(attempts=5, deadline_s=1e12))
        self.dispatcher = Dispatcher(
            engine, self.broker, self.tracker, Metrics(), routes=routes, dead_letters=DEAD, max_value_bytes=MIB,
            handlers=[handler], suspending=Suspending.from_settings(routes, [handler], settings),
            retrying=Retrying({handler.name: policy}, app="test", topic=topic), bounds=bounds,
        )  # fmt: skip
        self.tasks = [
            asyncio.create_task(each.run())
            for each in (self.dispatcher, self.dispatcher.suspending, self.dispatcher.retrying)
        ]

    async def publish(self, messages):
        await asyncio.sleep(0)
        refused = [TopicRefused("it is not there") if message.topic in self.missing else None for message in messages]
        self.broker.taken += [message for message, error in zip(messages, refused, strict=True) if error is None]
        return refused

    def send(self, count: int, value: bytes = b"x", key: bytes | None = None) -> dict[TopicPartition, int | None]:
        """Deliver records to the handler, each with a key of its own where none is given."""
        offsets = range(self.offset, self.offset + count)
        records = [ConsumerRecord(*PARTITION, n, 1, 0, key or b"k%d" % n, value, None, 1, 1, ()) for n in offsets]
        self.offset += count
        return self.dispatcher.receive({PARTITION: records})

    def send_large(self) -> None:
        """Deliver more bytes to the handler, over three partitions, than the process works on at once."""
        for partition in TURNS:
            records = [ConsumerRecord(*partition, n, 1, 0, b"k%d" % n, VALUE, None, 1, 1, ()) for n in range(60)]
            assert self.dispatcher.receive({partition: records}) == {}

    def send_agent(self) -> None:
        record = ConsumerRecord(*IN, 0, 1, 0, None, b'{"text":"a"}', None, 1, 1, ())
        self.dispatcher.receive({IN: [record]})

    def sent(self, topic: str) -> list:
        return [message for message in self.broker.taken if message.topic == topic]

    @property
    def committable(self) -> int | None:
        return self.tracker.progress(PARTITION).committable


@pytest.fixture
async def make_line():
    lines: list[Line] = []

    async def make(*arguments, **options) -> Line:
        line = Line(*arguments, **options)
        await line.dispatcher.assign([*TURNS, IN])
        lines.append(line)
        return line

    yield make
    for line in lines:
        assert await line.dispatcher.drain(1)
        for task in line.tasks:
            task.cancel()


async def test_what_a_suspended_handler_has_published_holds_no_bytes_that_others_need(make_line):
    line = await make_line(Asking("none", times=0))
    line.missing = {"echoes"}
    line.send_large()
    await until(line, lambda: line.dispatcher.suspending.suspended)
    line.send_agent()
    await until(line, lambda: line.sent("out"))
    line.missing = set()
    await until(line, lambda: len(line.sent("echoes")) == 180)
    await until(line, lambda: line.dispatcher._under_way.bytes == 0)


@pytest.mark.parametrize("ordering", ["none", "key"])
async def test_records_that_pause_before_another_attempt_hold_no_bytes_that_others_need(make_line, ordering):
    line = await make_line(Asking(ordering))
    line.send_large()
    await asyncio.sleep(0.05)
    line.send_agent()
    await until(line, lambda: line.sent("out"))


@pytest.mark.parametrize("ordering", ["none", "key"])
async def test_hundreds_of_records_that_pause_do_not_hold_back_their_neighbours(make_line, ordering):
    line = await make_line(Asking(ordering))
    line.send(600)
    line.send(3, key=b"good")
    await until(line, lambda: len(line.sent("echoes")) == 3)


async def test_after_a_pause_records_go_on_as_many_at_a_time_as_new_ones(make_line):
    handler = Asking("key", pause_s=0.1)
    line = await make_line(handler)
    line.send(600)
    await until(line, lambda: line.committable == 600)
    assert handler.most_open <= 256
    await until(line, lambda: line.dispatcher._under_way.bytes == 0)


@pytest.mark.parametrize("ordering", ["none", "key"])
async def test_what_pauses_counts_for_the_bytes_of_its_partition(make_line, ordering):
    line = await make_line(Asking(ordering, pause_s=0.2), bounds=Bounds(partition_bytes=MIB))
    (left_at,) = line.send(10, VALUE).values()
    assert left_at == 5
    reopened: list[TopicPartition] = []
    line.dispatcher.on_reopened = reopened.extend
    await asyncio.sleep(0.1)
    assert reopened == []
    await until(line, lambda: line.committable == 5)
    await until(line, lambda: reopened == [PARTITION])


async def test_beyond_half_of_its_partitions_bytes_a_pausing_record_moves_to_the_topic(make_line):
    line = await make_line(Asking("none", pause_s=20), topic="murmura.retries", bounds=Bounds(partition_bytes=MIB))
    line.send(5, VALUE)
    await until(line, lambda: len(line.sent("murmura.retries")) == 3)
    assert line.committable == 0


async def test_a_handlers_pausing_records_move_when_their_partition_is_at_its_bound_of_offsets(make_line):
    line = await make_line(Asking("none", pause_s=20), topic="murmura.retries", bounds=Bounds(uncommitted=10))
    line.send(4)
    await asyncio.sleep(0.15)
    assert line.sent("murmura.retries") == []
    line.send(6, key=b"good")
    await until(line, lambda: len(line.sent("murmura.retries")) == 4)
    await until(line, lambda: line.committable == 10)
    headers = dict(line.sent("murmura.retries")[0].headers)
    assert headers["murmura_attempts"] == b"1"


async def test_a_record_whose_key_is_ordered_stays_in_place_at_the_bound_of_offsets(make_line):
    line = await make_line(Asking("key", pause_s=20), topic="murmura.retries", bounds=Bounds(uncommitted=4))
    line.send(4)
    await asyncio.sleep(0.2)
    assert line.sent("murmura.retries") == []


async def test_what_pauses_and_what_waits_behind_it_is_no_work_that_stands_still(make_line):
    line = await make_line(Asking("key"))
    line.send(3, key=b"k")
    await until(line, lambda: not line.dispatcher.has_work)
    assert line.dispatcher.idle_records(PARTITION) == 3
    line.dispatcher._under_way.begin(1 << 40)  # nothing new may start
    line.send(1, key=b"good")
    assert line.dispatcher.has_work
    assert line.tracker.progress(PARTITION).unfinished - line.dispatcher.idle_records(PARTITION) == 1
    line.dispatcher._under_way.end(1 << 40)
    await until(line, lambda: not line.dispatcher.has_work)


async def test_pausing_records_are_given_up_with_their_partition_and_delivered_again(make_line):
    handler = Asking("none")
    line = await make_line(handler)
    given: list[int] = []
    handler.given_up = lambda record: given.append(record.offset)  # type: ignore[method-assign]
    line.send(3, VALUE)
    await until(line, lambda: len(handler.asked) == 3)
    assert await line.dispatcher.drain(1)
    await until(line, lambda: sorted(given) == [0, 1, 2])
    assert line.dispatcher._under_way.bytes == 0
