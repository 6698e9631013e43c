"""Frozen parts of topics on a real Kafka: nothing behind the end, nothing twice, and no silence about what is gone."""

import asyncio
import time
from collections import defaultdict
from threading import Thread

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from murmura.runtime.errors import MurmuraError, SetupError
from murmura.runtime.kafka import offset_ranges
from murmura.runtime.kafka.offset_ranges import OffsetRange
from murmura.runtime.settings.settings import KafkaSettings


async def write(bootstrap, topic, count, *, partition=0, transaction=None, abort=False, start=0, padding=0):
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=transaction, linger_ms=5)
    await producer.start()
    try:
        if transaction:
            await producer.begin_transaction()
        for n in range(start, start + count):
            await producer.send(topic, b"%d" % n + b" " * padding, partition=partition)
        if transaction:
            await (producer.abort_transaction() if abort else producer.commit_transaction())
    finally:
        await producer.stop()


async def delete_before(bootstrap, topic, offset, partition=0):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(offset)})
    finally:
        await admin.close()


class Reader:
    def __init__(self, kafka):
        self.settings = KafkaSettings(bootstrap_servers=kafka, request_timeout_ms=8000)
        self.values = defaultdict(list)
        self.offsets = defaultdict(list)
        self.unreadable = []
        self.passed = 0

    def take(self, number, records):
        self.values[number] += [record.value for record in records]
        self.offsets[number] += [record.offset for record in records]

    def progress(self, records):
        self.passed += records

    async def read(self, ranges, **more):
        async with asyncio.timeout(60):
            await offset_ranges.read(
                self.settings,
                ranges,
                self.take,
                unreadable=lambda number, offset: self.unreadable.append((number, offset)),
                progress=self.progress,
                **more,
            )


async def test_what_comes_after_freezing_is_not_read(kafka, make_topics):
    (topic,) = await make_topics("frozen")
    for partition in range(3):
        await write(kafka, topic, 100 * partition, partition=partition)
    reader = Reader(kafka)
    ranges = await offset_ranges.freeze(reader.settings, [[topic]])
    assert ranges == [OffsetRange(topic, n, 0, 100 * n) for n in range(3)]
    for partition in range(3):
        await write(kafka, topic, 50, partition=partition, start=1000)
    await offset_ranges.check(reader.settings, ranges)
    await reader.read(ranges)
    assert dict(reader.values) == {n: [b"%d" % i for i in range(100 * n)] for n in (1, 2)}
    assert reader.passed == 300


async def test_a_part_in_the_middle_is_read_alone(kafka, make_topics):
    (topic,) = await make_topics("middle", partitions=1)
    await write(kafka, topic, 100)
    reader = Reader(kafka)
    await reader.read([OffsetRange(topic, 0, 40, 60)])
    assert reader.offsets[0] == list(range(40, 60))


async def test_a_range_that_ends_with_a_transaction_s_marker_comes_to_its_end(kafka, make_topics, unique):
    (topic,) = await make_topics("marked", partitions=1)
    await write(kafka, topic, 5, transaction=unique("t"))
    await write(kafka, topic, 5, transaction=unique("t"), abort=True, start=100)
    reader = Reader(kafka)
    (range_,) = await offset_ranges.freeze(reader.settings, [[topic]])
    assert range_.end == 12
    await reader.read([range_])
    assert reader.values[0] == [b"%d" % n for n in range(5)]
    assert reader.passed == 12


async def test_records_that_nobody_wants_are_passed_over(kafka, make_topics):
    (topic,) = await make_topics("sparse", partitions=1)
    await write(kafka, topic, 30_000)
    wanted = [3, 7, 20_000, 29_000]
    reader = Reader(kafka)
    await reader.read(
        [OffsetRange(topic, 0, 0, 30_000)],
        next_wanted=lambda number, offset: next((each for each in wanted if each >= offset), 1 << 40),
    )
    assert set(wanted) <= set(reader.offsets[0])
    assert reader.offsets[0] == sorted(set(reader.offsets[0]))
    assert max(reader.offsets[0]) < 30_000
    assert reader.passed == 30_000


async def test_a_record_that_cannot_be_unpacked_is_told_and_stepped_over(kafka, make_topics, spoiled_batch):
    (topic,) = await make_topics("spoiled", partitions=2)
    for _ in range(2):
        await write(kafka, topic, 20)
        await spoiled_batch(kafka, TopicPartition(topic, 0))
    await write(kafka, topic, 20)
    await write(kafka, topic, 500, partition=1)
    reader = Reader(kafka)
    ranges = await offset_ranges.freeze(reader.settings, [[topic]])
    await reader.read(ranges)
    assert sorted(reader.unreadable) == [(0, 20), (0, 41)]
    assert reader.offsets[0] == [n for n in range(62) if n not in {20, 41}]
    assert reader.offsets[1] == list(range(500))


async def test_what_the_broker_no_longer_has_is_named_with_what_is_left(kafka, make_topics):
    (topic,) = await make_topics("gone", partitions=2)
    await write(kafka, topic, 100, partition=1)
    reader = Reader(kafka)
    ranges = await offset_ranges.freeze(reader.settings, [[topic]])
    await delete_before(kafka, topic, 60, partition=1)
    said = rf"{topic}, partition 1: of offsets 0 to 100 \(exclusive\) 60 to 100 is left"
    with pytest.raises(SetupError, match=said):
        await offset_ranges.check(reader.settings, ranges)
    with pytest.raises(SetupError, match=said):
        await reader.read(ranges)
    assert (await offset_ranges.freeze(reader.settings, [[topic]]))[1] == OffsetRange(topic, 1, 60, 100)


@pytest.mark.parametrize(
    ("partition", "end", "said"),
    [(0, 20, r"of offsets 5 to 20 \(exclusive\) 5 to 10 is left"), (7, 20, "has no partition 7.*nothing is left")],
)
async def test_a_topic_that_was_made_anew_has_fewer_records(kafka, make_topics, partition, end, said):
    (topic,) = await make_topics("anew", partitions=1)
    await write(kafka, topic, 10)
    with pytest.raises(SetupError, match=said):
        await offset_ranges.check(Reader(kafka).settings, [OffsetRange(topic, partition, 5, end)])


async def test_a_topic_that_is_not_there_is_named(kafka):
    with pytest.raises(SetupError, match="topic no-such-topic is not on"):
        await offset_ranges.freeze(Reader(kafka).settings, [["no-such-topic"]])


async def test_what_is_deleted_during_the_read_is_named_with_what_is_left(kafka, make_topics):
    (topic,) = await make_topics("vanishing", partitions=1)
    await write(kafka, topic, 12_000, padding=1000)  # far more than is fetched ahead
    reader = Reader(kafka)
    ranges = await offset_ranges.freeze(reader.settings, [[topic]])

    def take(number, records):
        if not reader.offsets:
            deleting = Thread(target=asyncio.run, args=(delete_before(kafka, topic, 11_990),))
            deleting.start()
            deleting.join()
        Reader.take(reader, number, records)

    reader.take = take
    with pytest.raises(SetupError, match=rf"{topic}, partition 0: of offsets 0 to 12000 \(exclusive\) 11990 to 12000"):
        await reader.read(ranges)
    assert reader.offsets[0] == list(range(len(reader.offsets[0])))


async def test_a_range_that_ends_where_compaction_left_nothing_comes_to_its_end(kafka, make_topics):
    config = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001"}
    (topic,) = await make_topics("compacted", partitions=1, config=config)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    for n in range(1000):
        await producer.send(topic, b"%d" % n, key=b"%d" % (n % 5))
    await producer.flush()
    reader = Reader(kafka)
    async with asyncio.timeout(90):
        while not reader.offsets or len(reader.offsets[0]) > 500:
            await asyncio.sleep(0.2)
            await producer.send_and_wait(topic, b"again", key=b"5")  # only a segment that is full is compacted
            reader = Reader(kafka)
            await reader.read(await offset_ranges.freeze(reader.settings, [[topic]]))
    await producer.stop()
    reader = Reader(kafka)
    await reader.read([OffsetRange(topic, 0, 10, 900)])
    assert (dict(reader.offsets), reader.passed) == ({}, 890)


async def test_a_broker_that_dies_during_the_read_is_one_line(own_kafka, make_topics):
    (topic,) = await make_topics("dying", partitions=2, bootstrap=own_kafka.bootstrap)
    for partition in range(2):
        await write(own_kafka.bootstrap, topic, 6_000, partition=partition, padding=1000)
    reader = Reader(own_kafka.bootstrap)
    reader.settings = KafkaSettings(bootstrap_servers=own_kafka.bootstrap, request_timeout_ms=3000)
    ranges = await offset_ranges.freeze(reader.settings, [[topic]])

    def take(number, records):
        if not reader.offsets:
            own_kafka.kill()
        Reader.take(reader, number, records)

    reader.take = take
    began = time.monotonic()
    with pytest.raises(MurmuraError, match=rf"{topic}, partition \d: the broker gave nothing from offset \d+ on"):
        await reader.read(ranges)
    assert time.monotonic() - began < 60
    with pytest.raises(SetupError, match="no Kafka broker"):
        await offset_ranges.freeze(reader.settings, [[topic]])
