"""A producer that fails is replaced once, however many calls failed with it, and nothing that was given to it is lost."""

import asyncio

import pytest
from aiokafka import TopicPartition
from serving import read_values
from started_publisher import start_publisher

from murmura.runtime.wire.message import Message

PARTITIONS, CALLS = 12, 20


def call(topic: str, number: int) -> list[Message]:
    """The messages of one call: one for each partition."""
    return [Message(topic, b"%d/%d" % (number, p), b"k", [], p) for p in range(PARTITIONS)]


def end_by_cancel(producer) -> None:
    producer._sender.sender_task.cancel()


def end_by_error(producer) -> None:
    def fail(**more):
        raise RuntimeError("a bug in the client")

    producer._message_accumulator.drain_by_nodes = fail


@pytest.mark.parametrize("end_sender", [end_by_cancel, end_by_error])
async def test_a_producer_whose_sender_has_ended_is_replaced_once(kafka, make_topics, end_sender):
    (topic,) = await make_topics("sent", partitions=PARTITIONS)
    async with start_publisher(kafka, send_timeout_s=20) as publisher:
        assert await publisher.publish(call(topic, 0)) == [None] * PARTITIONS
        end_sender(publisher.producers[0])
        async with asyncio.timeout(60):  # before a send is given up
            answers = await asyncio.gather(*(publisher.publish(call(topic, n)) for n in range(1, CALLS)))
        assert answers == [[None] * PARTITIONS] * (CALLS - 1)
        assert len(publisher.producers) == 2
    sent = [message.value for n in range(CALLS) for message in call(topic, n)]
    assert sorted(await read_values(kafka, topic, len(sent))) == sorted(sent)


async def test_a_gap_in_the_sequence_numbers_of_all_partitions_makes_one_new_producer(kafka, make_topics):
    (topic,) = await make_topics("sent", partitions=PARTITIONS)
    async with start_publisher(kafka) as publisher:
        assert await publisher.publish(call(topic, 0)) == [None] * PARTITIONS
        for partition in range(PARTITIONS):
            publisher.producers[0]._txn_manager.increment_sequence_number(TopicPartition(topic, partition), 5)
        answers = await asyncio.gather(*(publisher.publish(call(topic, n)) for n in range(1, CALLS)))
        assert answers == [[None] * PARTITIONS] * (CALLS - 1)
        assert len(publisher.producers) == 2
    sent = [message.value for n in range(CALLS) for message in call(topic, n)]
    assert sorted(await read_values(kafka, topic, len(sent))) == sorted(sent)


async def test_an_outage_of_the_broker_makes_one_new_producer(own_kafka, make_topics):
    (topic,) = await make_topics("sent", partitions=PARTITIONS, bootstrap=own_kafka.bootstrap)
    async with start_publisher(own_kafka.bootstrap, send_timeout_s=1, kafka={"request_timeout_ms": 2000}) as publisher:
        assert await publisher.publish(call(topic, 0)) == [None] * PARTITIONS
        for fault, repair in ((own_kafka.kill, own_kafka.start), (own_kafka.freeze, own_kafka.thaw)):
            made, connected = len(publisher.producers), publisher.connected
            await asyncio.to_thread(fault)
            calls = [asyncio.create_task(publisher.publish(call(topic, n))) for n in range(1, CALLS)]
            await asyncio.sleep(5)
            assert len(publisher.producers) - made <= 8  # as many attempts to connect as one call would have made
            await asyncio.to_thread(repair)
            async with asyncio.timeout(60):
                assert await asyncio.gather(*calls) == [[None] * PARTITIONS] * (CALLS - 1)
            assert publisher.connected - connected == 1
