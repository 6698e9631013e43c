"""The depth and age of the dead-letter topic, by offsets alone."""

import asyncio
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from murmura.runtime.kafka.dead_letter_depth import DeadLetterDepth, Depth, read_depth
from murmura.runtime.settings.settings import KafkaSettings


async def test_depth_is_log_end_less_log_start_and_age_that_of_the_oldest_record(kafka, make_topics):
    (topic,) = await make_topics("dead", partitions=3)
    partitions = [TopicPartition(topic, number) for number in range(3)]
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    assert await read_depth(consumer, partitions) == Depth(0, None)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    hour_ago = int((time.time() - 3600) * 1000)
    for number, timestamp in ((0, hour_ago + 500_000), (1, hour_ago), (1, None)):
        await producer.send_and_wait(topic, b"x", partition=number, timestamp_ms=timestamp)
    await producer.stop()
    assert await read_depth(consumer, partitions) == Depth(3, hour_ago / 1000)
    await consumer.stop()

    depth = DeadLetterDepth(KafkaSettings(bootstrap_servers=kafka), topic, 3, interval_s=0.05)
    assert (depth.records(), depth.age_s()) == ({}, {}), "unknown is absent, not 0"
    task = asyncio.create_task(depth.run())
    async with asyncio.timeout(60):
        while not depth.records():
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert depth.records() == {(): 3}
    assert 3599 < depth.age_s()[()] < 3660


async def test_depth_and_age_need_no_right_to_read_the_topic(guarded_kafka, make_topics):
    (topic,) = await make_topics("dead", partitions=1, bootstrap=guarded_kafka.bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=guarded_kafka.bootstrap)
    await producer.start()
    await producer.send_and_wait(topic, b"x", timestamp_ms=1_700_000_000_000)
    await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=guarded_kafka.bootstrap)
    await consumer.start()
    with guarded_kafka.denied(topic, "read"):
        assert await read_depth(consumer, [TopicPartition(topic, 0)]) == Depth(1, 1_700_000_000)
    await consumer.stop()


async def test_a_broker_that_does_not_answer_makes_the_depth_unknown_and_ends_nothing():
    depth = DeadLetterDepth(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "dead", 1, interval_s=0.05)
    task = asyncio.create_task(depth.run())
    await asyncio.sleep(0.3)
    assert not task.done()
    assert depth.records() == {}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
