"""What a real broker refuses is decided by its scope, and what goes elsewhere is neither held nor lost."""

import asyncio
import gc
from contextlib import AsyncExitStack

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.produce import ProduceRequest
from kafka_topics import admin_call, create_topics, delete_topic
from serving import read_values
from started_publisher import start_publisher

from murmura.runtime.errors import PartitionMissing, RecordRefused, RecordTooLarge, Scope, TopicRefused
from murmura.runtime.settings.settings import ProducerSettings
from murmura.runtime.wire.message import Message


@pytest.fixture
async def start():
    async with AsyncExitStack() as stack:

        async def start(bootstrap, **more):
            return await stack.enter_async_context(start_publisher(bootstrap, **more))

        yield start


async def set_config(bootstrap, topic, name, value):
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={name: value})
    await admin_call(bootstrap, lambda admin: admin.alter_configs([resource]))


async def test_a_denied_topic_is_refused_at_once_and_taken_when_it_is_allowed_again(guarded_kafka, make_topics, start):
    denied, open_ = await make_topics("denied", "open", partitions=2, bootstrap=guarded_kafka.bootstrap)
    publisher = await start(guarded_kafka.bootstrap)
    both = [Message(denied, b"a", b"k", []), Message(open_, b"b", b"k", [])]
    assert await publisher.publish(both) == [None, None]
    with guarded_kafka.denied(denied, "write"):
        refused, taken = await publisher.publish(both)
        assert isinstance(refused, TopicRefused)
        assert (refused.scope, taken) == (Scope.TOPIC, None)
    assert await publisher.publish(both) == [None, None]
    assert (len(publisher.producers), publisher.pauses) == (1, [])


async def test_a_batch_that_was_appended_before_it_was_refused_does_not_hide_the_next_one(
    guarded_kafka, make_topics, start
):
    # A broker takes a batch with the sequence numbers of an appended one for its repetition, and drops it.
    (topic,) = await make_topics("denied", partitions=1, bootstrap=guarded_kafka.bootstrap)
    publisher = await start(guarded_kafka.bootstrap)
    client = publisher.producers[0].client
    send = client.send

    async def send_and_lose_the_answer(node, request, **more):
        answer = await send(node, request, **more)
        if not isinstance(request, ProduceRequest):
            return answer
        client.send = send
        await asyncio.to_thread(guarded_kafka.deny, topic, "write")
        raise KafkaConnectionError("the connection ended before the answer")

    client.send = send_and_lose_the_answer
    (refused,) = await publisher.publish([Message(topic, b"appended", b"k", [])])
    assert isinstance(refused, TopicRefused)
    await asyncio.to_thread(guarded_kafka.allow_again, topic)
    assert await publisher.publish([Message(topic, b"next", b"k", [])]) == [None]
    assert await read_values(guarded_kafka.bootstrap, topic, 2) == [b"appended", b"next"]


async def test_a_topic_that_is_deleted_while_it_is_written_is_refused_and_taken_when_it_is_made_again(
    kafka, make_topics, start, caplog
):
    gone, stays = await make_topics("gone", "stays", partitions=1)
    publisher = await start(kafka, missing_s=0.5)
    both = [Message(gone, b"a", b"k", []), Message(stays, b"b", b"k", [])]
    assert await publisher.publish(both) == [None, None]
    await delete_topic(kafka, gone)
    async with asyncio.timeout(60):
        refused, taken = await publisher.publish(both)
        assert isinstance(refused, TopicRefused)
        assert taken is None
        refused, taken = await publisher.publish(both)  # it is known now: nobody waits for it
        assert isinstance(refused, TopicRefused)
    await create_topics(kafka, [gone], 1, {})
    await asyncio.sleep(0.6)
    publisher.forget(gone)
    assert await publisher.partitions(gone) == 1
    assert await publisher.publish([Message(gone, b"again", b"k", [])]) == [None]
    assert await read_values(kafka, gone, 1) == [b"again"]
    gc.collect()  # asyncio complains of an exception that nobody has read when its future is collected
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


async def test_a_topic_that_never_was_is_asked_for_once(kafka, unique, start):
    publisher = await start(kafka)
    nowhere = [Message(unique("nowhere"), b"%d" % n, b"k", []) for n in range(20)]
    for _ in range(3):
        async with asyncio.timeout(60):
            assert {type(refused) for refused in await publisher.publish(nowhere)} == {TopicRefused}
    assert publisher.pauses == []


async def test_a_partition_that_was_added_is_found_before_it_is_said_to_be_missing(kafka, make_topics, start):
    (topic,) = await make_topics("grows", partitions=1)
    publisher = await start(kafka)
    assert await publisher.publish([Message(topic, b"a", None, [], 0)]) == [None]
    await admin_call(kafka, lambda admin: admin.create_partitions({topic: NewPartitions(2)}))
    assert await publisher.publish([Message(topic, b"b", None, [], 1)]) == [None]
    (refused,) = await publisher.publish([Message(topic, b"c", None, [], 7)])
    assert isinstance(refused, PartitionMissing)
    assert refused.scope is Scope.RECORD


async def test_what_is_larger_than_the_client_may_send_is_refused_before_it_is_sent(kafka, make_topics, start):
    (topic,) = await make_topics("small", partitions=1)
    publisher = await start(kafka, max_request_bytes=ProducerSettings().max_request_bytes)
    giant, fits = await publisher.publish(
        [Message(topic, b"x" * 120_000_000, b"k", []), Message(topic, b"fits", b"k", [])]
    )
    assert isinstance(giant, RecordTooLarge)
    assert (fits, publisher.pauses) == (None, [])


LARGE = Message("", b"x" * 3_000, b"k", [])
KEYLESS = Message("", b"x", None, [])
REFUSALS = {
    "too large": (LARGE, {"max.message.bytes": "2000"}, RecordTooLarge),
    "no key in a compacted topic": (KEYLESS, {"cleanup.policy": "compact"}, RecordRefused),
}


@pytest.mark.parametrize(("refused", "config", "error"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_refused_message_disturbs_no_later_one_of_its_partition(
    kafka, make_topics, start, refused, config, error
):
    (topic,) = await make_topics("strict", partitions=1, config=config)
    publisher = await start(kafka)
    refused = refused._replace(topic=topic)
    expected = []
    for n in range(3):
        good = [Message(topic, b"%d.%d" % (n, m), b"k%d.%d" % (n, m), []) for m in range(4)]
        expected += [message.value for message in good]
        first, *answers = await publisher.publish([good[0], refused, *good[1:]])
        assert (first, answers[1:]) == (None, [None] * 3)
        assert isinstance(answers[0], error)
    assert await publisher.publish([refused]) != [None]
    assert await publisher.publish([Message(topic, b"last", b"last", [])]) == [None]
    assert await read_values(kafka, topic, 13) == [*expected, b"last"]
    assert (len(publisher.producers), publisher.pauses) == (1, [])


async def test_a_partition_takes_more_records_than_there_are_sequence_numbers(kafka, make_topics, start):
    (topic,) = await make_topics("long", partitions=1, config={"cleanup.policy": "compact"})
    publisher = await start(kafka)
    publisher.producers[0]._txn_manager._sequence_numbers[TopicPartition(topic, 0)] = 2**31 - 5
    expected = []
    for n in range(5):
        batch = [Message(topic, b"%d.%d" % (n, m), b"%d.%d" % (n, m), []) for m in range(3)]
        refused, *answers = await publisher.publish([KEYLESS._replace(topic=topic), *batch])
        assert isinstance(refused, RecordRefused)
        assert answers == [None] * 3
        expected += [message.value for message in batch]
    assert await read_values(kafka, topic, 15) == expected
    assert (len(publisher.producers), publisher.pauses) == (1, [])


async def test_a_message_with_a_refused_timestamp_disturbs_no_later_one(kafka, make_topics, start):
    (topic,) = await make_topics("dated", partitions=1)
    publisher = await start(kafka)
    message, taken = Message(topic, b"a", b"k", []), 1
    assert await publisher.publish([message]) == [None]
    await set_config(kafka, topic, "message.timestamp.before.max.ms", "0")  # every record is older when it arrives
    while (error := (await publisher.publish([message]))[0]) is None:
        taken += 1  # the broker does not know of the change yet
    assert isinstance(error, RecordRefused)
    assert "InvalidTimestampError" in str(error)
    await set_config(kafka, topic, "message.timestamp.before.max.ms", "3600000")
    while (await publisher.publish([message]))[0] is not None:
        pass
    assert len(await read_values(kafka, topic, taken + 1)) == taken + 1
    assert (len(publisher.producers), publisher.pauses) == (1, [])


async def test_what_is_larger_than_the_topic_takes_costs_its_neighbours_nothing(kafka, make_topics, start):
    (topic,) = await make_topics("limited", partitions=1, config={"max.message.bytes": "2000"})
    publisher = await start(kafka)
    answers = await publisher.publish(
        [Message(topic, b"x" * (3_000 if n == 5 else 10), b"%d" % n, []) for n in range(10)]
    )
    assert [n for n, answer in enumerate(answers) if answer is not None] == [5]
    assert isinstance(answers[5], RecordTooLarge)
    assert len(await read_values(kafka, topic, 9)) == 9
