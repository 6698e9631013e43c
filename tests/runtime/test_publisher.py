"""The publisher insists until the broker has decided, and makes a new producer where the old one is past help."""

import asyncio
from unittest.mock import AsyncMock

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaConnectionError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
    UnknownError,
)

from murmura.runtime.errors import Closed, ProcessRefused, RecordRefused, RecordTooLarge
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.kafka.sending.producer import producer_factory
from murmura.runtime.kafka.sending.publisher import Publisher
from murmura.runtime.kafka.sending.scopes import InvalidRecordError
from murmura.runtime.settings.settings import KafkaSettings, ProducerSettings
from murmura.runtime.wire.message import Message

UNDECIDED = "undecided"


class Script:
    """What becomes of each send, in order, over all producers; then everything is acknowledged."""

    def __init__(self, *fates) -> None:
        self.fates = list(fates)
        self.producers: list[Producer] = []
        self.refuses_start, self.start_error = 0, KafkaConnectionError("nobody there")
        self.sent: list[str] = []

    def __call__(self) -> "Producer":
        self.producers.append(Producer(self))
        return self.producers[-1]


class Batch:
    def __init__(self) -> None:
        self.values: list[str] = []

    def append(self, *, timestamp, key, value, headers):
        self.values.append(value.decode())
        return self.values

    def close(self):
        pass


class Producer:
    """`fates` are those of batches: a topic is one partition, so messages that are sent together share one."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.client = Client()

    async def start(self):
        if self.script.refuses_start:
            self.script.refuses_start -= 1
            raise self.script.start_error

    async def close(self):
        pass

    async def partitions_for(self, topic):
        return {0}

    def create_batch(self):
        return Batch()

    async def send_batch(self, batch, topic, *, partition):
        self.script.sent.append("+".join(batch.values))
        fate = self.script.fates.pop(0) if self.script.fates else None
        future = asyncio.get_running_loop().create_future()
        if isinstance(fate, Exception):
            future.set_exception(fate)
        elif fate != UNDECIDED:
            future.set_result(None)
        return future


class Client:
    """What a producer's client knows of the cluster: each topic has one partition, or as the test says."""

    def __init__(self, *, fresh: bool = True, partitions: set[int] | None = frozenset({0})) -> None:
        self.fresh, self.partitions = fresh, partitions
        self.cluster = self

    async def force_metadata_update(self) -> bool:
        return self.fresh

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.partitions


def messages(*values: str) -> list[Message]:
    return [Message("out", value.encode(), b"k", []) for value in values]


def apart(*values: str) -> list[Message]:
    """Messages that share no batch: each has a topic of its own."""
    return [Message(f"out-{value}", value.encode(), b"k", []) for value in values]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("murmura.runtime.kafka.sending.publisher._FIRST_WAIT_S", 0.001)


async def started(script: Script, **more) -> Publisher:
    publisher = Publisher(script, send_timeout_s=0.1, **more)
    await publisher.start()
    return publisher


async def test_what_is_acknowledged_is_sent_once():
    script = Script()
    publisher = await started(script)
    assert await publisher.publish(messages("a", "b")) == [None, None]
    assert script.sent == ["a+b"]


async def test_only_what_failed_is_sent_again():
    script = Script(None, NotLeaderForPartitionError(), None)
    retried: list[int] = []
    publisher = await started(script, on_retry=retried.append)
    assert await publisher.publish(apart("a", "b", "c")) == [None, None, None]
    assert script.sent == ["a", "b", "c", "b"]
    assert retried == [1]
    assert len(script.producers) == 1


@pytest.mark.parametrize("fate", [OutOfOrderSequenceNumber(), UNDECIDED])
async def test_a_poisoned_or_silent_producer_is_replaced(fate):
    script = Script(fate)
    publisher = await started(script)
    assert await publisher.publish(messages("a")) == [None]
    assert script.sent == ["a", "a"]
    assert len(script.producers) == 2


async def test_a_broker_that_is_away_is_waited_for():
    script = Script(OutOfOrderSequenceNumber())
    publisher = await started(script)
    script.refuses_start = 3
    assert await publisher.publish(messages("a")) == [None]


async def test_a_process_that_may_open_no_producer_is_refused_after_the_limit_and_takes_nothing_in_until_then():
    script = Script(OutOfOrderSequenceNumber())
    publisher = await started(script, give_up_s=1.0)
    script.refuses_start, script.start_error = 1_000, ClusterAuthorizationFailedError()
    publishing = asyncio.create_task(publisher.publish(messages("a")))
    while "ClusterAuthorizationFailedError" not in (publisher.trouble or ""):
        assert not publishing.done()
        await asyncio.sleep(0.005)
    assert not publisher.taking.is_set()
    (refused,) = await asyncio.wait_for(publishing, 60)
    assert isinstance(refused, ProcessRefused)


async def test_one_large_record_does_not_take_its_neighbours_along():
    # The broker refuses the batch that both share, then the large one alone.
    script = Script(MessageSizeTooLargeError(), MessageSizeTooLargeError(), None)
    publisher = await started(script)
    large, fits = await publisher.publish(messages("large", "fits"))
    assert isinstance(large, RecordTooLarge)
    assert fits is None
    assert script.sent == ["large+fits", "large", "fits"]


async def test_a_record_that_the_broker_refuses_is_decided_and_neither_its_neighbours_nor_intake_wait():
    script = Script(InvalidRecordError(), InvalidRecordError(), None)
    publisher = await started(script)
    obstructions: list[bool] = []
    publisher.taking.clear = lambda: obstructions.append(True)
    refused, fits = await publisher.publish(messages("refused", "fits"))
    assert isinstance(refused, RecordRefused)
    assert fits is None
    assert script.sent == ["refused+fits", "refused", "fits"]
    assert obstructions == []


async def test_calls_that_failed_with_one_producer_make_one_new_producer_between_them(monkeypatch):
    monkeypatch.setattr("murmura.runtime.kafka.sending.publisher._FIRST_WAIT_S", 0.1)
    script = Script(OutOfOrderSequenceNumber(), OutOfOrderSequenceNumber())
    publisher = await started(script)
    early = asyncio.create_task(publisher.publish(messages("early")))
    await asyncio.sleep(0.05)
    late = asyncio.create_task(publisher.publish(messages("late")))
    assert await asyncio.gather(early, late) == [[None], [None]]
    assert len(script.producers) == 2


async def test_while_it_insists_intake_is_told_to_wait():
    script = Script(*[NotLeaderForPartitionError()] * 5)
    seen: list[bool] = []
    publisher = Publisher(script, send_timeout_s=0.1, on_retry=lambda count: seen.append(publisher.taking.is_set()))
    await publisher.start()
    await publisher.publish(messages("a"))
    assert seen == [False] * 5
    assert publisher.taking.is_set()


async def test_after_stop_waiting_messages_end_with_closed():
    script = Script(*[NotLeaderForPartitionError()] * 1000)
    publisher = await started(script)
    publishing = asyncio.create_task(publisher.publish(messages("a")))
    await asyncio.sleep(0.02)
    await publisher.stop()
    with pytest.raises(Closed):
        await asyncio.wait_for(publishing, 60)


async def test_how_many_partitions_there_are_is_told_once_the_producer_is_renewed():
    script = Script(UNDECIDED)
    publisher = await started(script)
    closing = asyncio.Event()
    script.producers[0].close = closing.wait
    publishing = asyncio.create_task(publisher.publish(messages("a")))
    await asyncio.sleep(0.15)
    asking = asyncio.create_task(publisher.partitions("out"))
    await asyncio.sleep(0.02)
    assert not asking.done()
    closing.set()
    assert await asyncio.wait_for(asking, 60) == 1
    assert await publishing == [None]


async def test_a_broker_that_says_nothing_of_a_topic_is_asked_again():
    publisher = await started(script := Script())
    answers = iter([TimeoutError(), NotLeaderForPartitionError(), {0, 1, 2}])

    async def partitions_for(topic):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    script.producers[0].partitions_for = partitions_for
    script.producers[0].client = Client(fresh=False, partitions=None)
    assert await publisher.partitions("out") == 3


@pytest.mark.parametrize("error", [TimeoutError(), TopicAuthorizationFailedError()])
async def test_a_topic_that_is_not_there_for_us_has_no_partitions(error):
    publisher = await started(script := Script())
    script.producers[0].partitions_for = AsyncMock(side_effect=error)
    script.producers[0].client = Client(fresh=True, partitions=None)
    assert await publisher.partitions("out") == 0


async def test_a_producer_that_cannot_be_flushed_is_given_up_with_what_it_held(monkeypatch):
    monkeypatch.setattr("murmura.runtime.kafka.sending.producer._STOP_S", 0.3)
    with EmbeddedBroker({"out": 1}) as broker:
        made = producer_factory(KafkaSettings(bootstrap_servers=broker.bootstrap), ProducerSettings())
        publisher = Publisher(made, send_timeout_s=0.3)
        await publisher.start()
        await publisher.publish(messages("first"))
        broker.go_down()
        publishing = asyncio.create_task(publisher.publish(messages("second")))
        await asyncio.sleep(2.0)
        sending = [task for task in asyncio.all_tasks() if "_sender_routine" in str(task.get_coro())]
        assert len(sending) <= 1
        broker.come_up()
        assert await asyncio.wait_for(publishing, 60) == [None]
        await publisher.stop()


async def test_a_real_broker_refuses_a_record_without_a_key_in_a_compacted_topic_and_takes_the_others(
    kafka, make_topics
):
    (compacted,) = await make_topics("compacted", partitions=1, config={"cleanup.policy": "compact"})
    (plain,) = await make_topics("plain", partitions=1)
    publisher = Publisher(producer_factory(KafkaSettings(bootstrap_servers=kafka), ProducerSettings()))
    await publisher.start()
    refused, *taken = await publisher.publish(
        [
            Message(compacted, b"no key", None, []),
            Message(compacted, b"keyed", b"k", []),
            Message(plain, b"no key", None, []),
        ]
    )
    assert isinstance(refused, RecordRefused)
    assert "InvalidRecordError" in str(refused)
    assert taken == [None, None]
    assert await publisher.publish([Message(compacted, b"after it", b"k", [])]) == [None]
    await publisher.stop()


async def test_an_error_without_a_name_is_the_record_s_own_only_when_others_to_its_topic_pass():
    script = Script()
    publisher = await started(script)

    async def send_batch(batch, topic, *, partition):
        future = asyncio.get_running_loop().create_future()
        if "strange" in batch.values:
            future.set_exception(UnknownError())
        else:
            future.set_result(None)
        return future

    script.producers[0].send_batch = send_batch
    trying = asyncio.create_task(publisher.publish(messages("strange")))
    await asyncio.sleep(0.3)
    assert not trying.done()
    assert not publisher.taking.is_set()
    assert await publisher.publish(messages("other")) == [None]
    (refused,) = await asyncio.wait_for(trying, 60)
    assert isinstance(refused, RecordRefused)
    assert publisher.taking.is_set()


async def test_what_is_no_message_is_refused_and_its_neighbours_are_sent():
    script = Script()
    publisher = await started(script)
    refused, sent = await publisher.publish([Message("out", "a text", b"k", []), *messages("fits")])
    assert isinstance(refused, RecordRefused)
    assert "AttributeError" in str(refused)
    assert (sent, script.sent) == (None, ["fits"])


async def test_while_a_batch_is_on_its_way_what_comes_shares_the_next_one():
    script = Script()
    publisher = await started(script)
    on_its_way = asyncio.get_running_loop().create_future()
    plain = script.producers[0].send_batch

    async def send_batch(batch, topic, *, partition):
        sent = await plain(batch, topic, partition=partition)
        return on_its_way if "first" in batch.values else sent

    script.producers[0].send_batch = send_batch
    first = asyncio.create_task(publisher.publish(messages("first")))
    await asyncio.sleep(0.02)
    others = [asyncio.create_task(publisher.publish(messages(f"{n}"))) for n in range(5)]
    await asyncio.sleep(0.02)
    on_its_way.set_result(None)
    await asyncio.gather(first, *others)
    assert script.sent == ["first", "0+1+2+3+4"]
