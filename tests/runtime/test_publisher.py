"""The publisher insists until the broker has decided, and makes a new producer where the old one is past help."""

import asyncio
from unittest.mock import AsyncMock

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)

from murmura.runtime.deadletters import Message
from murmura.runtime.embedded import EmbeddedBroker
from murmura.runtime.errors import Closed, RecordRefused, RecordTooLarge
from murmura.runtime.publisher import Publisher, producer_factory
from murmura.runtime.scopes import InvalidRecordError
from murmura.runtime.settings import KafkaSettings, ProducerSettings

UNDECIDED = "undecided"


class Script:
    """What becomes of each send, in order, over all producers; then everything is acknowledged."""

    def __init__(self, *fates) -> None:
        self.fates = list(fates)
        self.producers: list[Producer] = []
        self.refuses_start = 0
        self.sent: list[str] = []

    def __call__(self) -> "Producer":
        self.producers.append(Producer(self))
        return self.producers[-1]


class Batch:
    def append(self, *, timestamp, key, value, headers):
        self.value = value

    def close(self):
        pass


class Producer:
    def __init__(self, script: Script) -> None:
        self.script = script

    async def start(self):
        if self.script.refuses_start:
            self.script.refuses_start -= 1
            raise KafkaConnectionError("nobody there")

    async def stop(self):
        pass

    async def partitions_for(self, topic):
        return {0}

    def create_batch(self):
        return Batch()

    async def send_batch(self, batch, topic, *, partition):
        return await self.send(topic, batch.value)

    async def send(self, topic, value=None, key=None, partition=None, headers=None):
        self.script.sent.append(value.decode())
        fate = self.script.fates.pop(0) if self.script.fates else None
        future = asyncio.get_running_loop().create_future()
        if isinstance(fate, Exception):
            future.set_exception(fate)
        elif fate != UNDECIDED:
            future.set_result(None)
        return future


def messages(*values: str) -> list[Message]:
    return [Message("out", value.encode(), b"k", []) for value in values]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("murmura.runtime.publisher._FIRST_WAIT_S", 0.001)


async def started(script: Script, **more) -> Publisher:
    publisher = Publisher(script, send_timeout_s=0.1, **more)
    await publisher.start()
    return publisher


async def test_what_is_acknowledged_is_sent_once():
    script = Script()
    publisher = await started(script)
    assert await publisher.publish(messages("a", "b")) == [None, None]
    assert script.sent == ["a", "b"]


async def test_only_what_failed_is_sent_again():
    script = Script(None, NotLeaderForPartitionError(), None)
    retried: list[int] = []
    publisher = await started(script, on_retry=retried.append)
    assert await publisher.publish(messages("a", "b", "c")) == [None, None, None]
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


async def test_one_large_record_does_not_take_its_neighbours_along():
    # The broker refuses the batch that both share, then the large one alone.
    script = Script(MessageSizeTooLargeError(), MessageSizeTooLargeError(), MessageSizeTooLargeError(), None)
    publisher = await started(script)
    large, fits = await publisher.publish(messages("large", "fits"))
    assert isinstance(large, RecordTooLarge)
    assert fits is None
    assert script.sent == ["large", "fits", "large", "fits"]


async def test_a_record_that_the_broker_refuses_is_decided_and_neither_its_neighbours_nor_intake_wait():
    script = Script(InvalidRecordError(), InvalidRecordError(), InvalidRecordError(), None)
    publisher = await started(script)
    obstructions: list[bool] = []
    publisher.taking.clear = lambda: obstructions.append(True)
    refused, fits = await publisher.publish(messages("refused", "fits"))
    assert isinstance(refused, RecordRefused)
    assert fits is None
    assert script.sent == ["refused", "fits", "refused", "fits"]
    assert obstructions == []


async def test_calls_that_failed_with_one_producer_make_one_new_producer_between_them(monkeypatch):
    monkeypatch.setattr("murmura.runtime.publisher._FIRST_WAIT_S", 0.1)
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
        await asyncio.wait_for(publishing, 5)


async def test_how_many_partitions_there_are_is_told_once_the_producer_is_renewed():
    script = Script(UNDECIDED)
    publisher = await started(script)
    closing = asyncio.Event()
    script.producers[0].stop = closing.wait
    publishing = asyncio.create_task(publisher.publish(messages("a")))
    await asyncio.sleep(0.15)
    asking = asyncio.create_task(publisher.partitions("out"))
    await asyncio.sleep(0.02)
    assert not asking.done()
    closing.set()
    assert await asyncio.wait_for(asking, 5) == 1
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
    script.producers[0].client = Client(fresh=False)
    assert await publisher.partitions("out") == 3


@pytest.mark.parametrize("error", [TimeoutError(), TopicAuthorizationFailedError()])
async def test_a_topic_that_is_not_there_for_us_has_no_partitions(error):
    publisher = await started(script := Script())
    script.producers[0].partitions_for = AsyncMock(side_effect=error)
    script.producers[0].client = Client(fresh=True)
    assert await publisher.partitions("out") == 0


class Client:
    """What a producer's client knows of the cluster: nothing."""

    def __init__(self, *, fresh: bool) -> None:
        self.fresh = fresh
        self.cluster = self

    async def force_metadata_update(self) -> bool:
        return self.fresh

    def partitions_for_topic(self, topic: str) -> None:
        return None


async def test_a_producer_that_cannot_be_flushed_is_given_up_with_what_it_held(monkeypatch):
    monkeypatch.setattr("murmura.runtime.publisher._STOP_S", 0.3)
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
        assert await asyncio.wait_for(publishing, 10) == [None]
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
